/** What every operation starts from: the inventory as it is read now, and its change as a step. */
import { type Context, DeployError } from "../common/context.ts";
import { readRequired, writeWhole } from "../common/files.ts";
import { certificateSet, type Inventory, parseInventory } from "../inventory/inventory.ts";
import { makeSet } from "../pki/set.ts";
import type { Step } from "../steps/run.ts";

export interface Tools {
  readonly context: Context;
  /** Of the inventory, absolute. */
  readonly path: string;
}

/** The inventory before an operation and after it, as written down at its beginning. */
export interface Change {
  readonly before: string;
  readonly after: string;
}

export const textOf = ({ path }: Tools): string => readRequired(path, "the inventory");
export const inventoryOf = ({ path }: Tools, text: string): Inventory => parseInventory(text, path);

/** None where nothing changes. `later` is what a later step of the operation makes of it. */
export function inventoryStep({ path }: Tools, { before, after }: Change, what: string, later = after): Step[] {
  if (before === after) return [];
  const read = () => readRequired(path, "the inventory");
  return [
    {
      text: `write the inventory: ${what}`,
      isDone: async () => [after, later].includes(read()),
      allow: async () => {
        if (read() !== before)
          throw new DeployError(
            `${path} was edited since this operation began: put it back as it was, or give the operation up (kvorum cluster abandon)`,
          );
      },
      run: async () => writeWhole(path, after),
    },
  ];
}

/** All that the inventory asks for are here, and good. */
export function certificatesStep({ context }: Tools, inventory: Inventory): Step {
  const now = () => ({ nowMs: context.clock.wallMs(), random: context.random });
  return {
    text: "make the certificates that are missing",
    run: async (tell) => {
      for (const { action, file } of await makeSet(certificateSet(inventory), now()))
        if (action !== "kept") tell(`${action} certificate ${file}\n`);
    },
  };
}

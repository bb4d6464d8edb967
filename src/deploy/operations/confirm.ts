/** What cannot be taken back is confirmed by the cluster's name: typed in, or given with --confirm. */
import { type Context, DeployError } from "../common/context.ts";

/** Throws DeployError when it is not. */
export async function confirmed(context: Context, name: string, answer: string | undefined): Promise<void> {
  const given = answer ?? (await context.ask?.(`Type the name of the cluster to go on: `));
  if (given === undefined)
    throw new DeployError(`nothing was done: confirm it with --confirm ${name}, for there is no terminal to ask at`);
  if (given.trim() !== name)
    throw new DeployError(`nothing was done: ${JSON.stringify(given.trim())} is not the name of the cluster`);
}

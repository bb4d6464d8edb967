/** Changes of an inventory's text that keep its comments: what operations write back. */
import { type Document, isMap, isSeq, parseDocument } from "yaml";
import { DeployError } from "../common/context.ts";

export interface NewMember {
  readonly name: string;
  readonly address: string;
  readonly ssh?: string;
}

/** Undefined removes the field. */
export const withField = (text: string, path: readonly string[], value: string | number | undefined): string =>
  edited(text, (document) => {
    if (value === undefined) document.deleteIn(path);
    else document.setIn(path, value);
  });

export const withMember = (text: string, member: NewMember): string =>
  edited(text, (document) => document.addIn(["members"], document.createNode(member)));

export const withoutMember = (text: string, name: string): string =>
  edited(text, (document) => document.deleteIn(["members", indexOf(document, name)]));

/** Another address for a member; `ssh` is how the new host is reached, its address when absent. */
export const withAddress = (text: string, { name, address, ssh }: NewMember): string =>
  edited(text, (document) => {
    const at = ["members", indexOf(document, name)];
    document.setIn([...at, "address"], address);
    if (ssh === undefined) document.deleteIn([...at, "ssh"]);
    else document.setIn([...at, "ssh"], ssh);
  });

function edited(text: string, change: (document: Document) => void): string {
  const document = parseDocument(text);
  change(document);
  return document.toString({ lineWidth: 0 });
}

function indexOf(document: Document, name: string): number {
  const members = document.get("members");
  const at = isSeq(members) ? members.items.findIndex((item) => isMap(item) && item.get("name") === name) : -1;
  if (at === -1) throw new DeployError(`the inventory has no member ${name}`);
  return at;
}

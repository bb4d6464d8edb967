/**
 * The plan of a new cluster: which pods found it, each named with the uid of its empty volume. The first pod makes it when every
 * pod has said that its volume is empty; the others follow a plan that names the very volume they have. So no pod whose volume
 * was lost founds a second cluster under the name of the first, whatever is down at the moment.
 */
import { isObject, textIn } from "./json.ts";

export interface Plan {
  /** Unlike any other cluster's. */
  readonly token: string;
  readonly founders: readonly Founder[];
}

export interface Founder {
  readonly name: string;
  readonly uid: string;
  readonly peerUrl: string;
}

export const isNamed = (plan: Plan, name: string, uid: string): boolean =>
  plan.founders.some((founder) => founder.name === name && founder.uid === uid);

export const initialCluster = ({ founders }: Plan): string =>
  founders.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",");

/** Undefined when it is none. */
export function planFrom(value: unknown): Plan | undefined {
  const token = textIn(value, "token");
  const list = isObject(value) ? value["founders"] : undefined;
  if (token === undefined || !Array.isArray(list)) return undefined;
  const founders = list.flatMap((each: unknown) => {
    const [name, uid, peerUrl] = ["name", "uid", "peerUrl"].map((field) => textIn(each, field));
    return name === undefined || uid === undefined || peerUrl === undefined ? [] : [{ name, uid, peerUrl }];
  });
  return founders.length === 0 || founders.length !== list.length ? undefined : { token, founders };
}

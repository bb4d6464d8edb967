import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";

/**
 * The address of the default route's interface: advertised by a member that listens on 0.0.0.0 without a configured
 * address. Throws with etcd's text when there is no such route.
 */
export function findDefaultHost(): string {
  const name = defaultInterface(readRoutes());
  const address = networkInterfaces()[name]?.find((entry) => entry.family === "IPv4" && !entry.internal);
  if (address === undefined) throw new Error("could not find default host");
  return address.address;
}

function readRoutes(): string {
  try {
    return readFileSync("/proc/net/route", "utf8");
  } catch {
    throw new Error("could not find default route");
  }
}

/** From the kernel's routing table: the first route to 0.0.0.0 with mask 0.0.0.0. */
export function defaultInterface(table: string): string {
  for (const line of table.split("\n").slice(1)) {
    const [name, destination, , , , , , mask] = line.split(/\s+/);
    if (name !== undefined && destination === "00000000" && mask === "00000000") return name;
  }
  throw new Error("could not find default route");
}

/** A lease's id as etcdctl prints it: 16 characters, including a minus sign. Source: Go's `%016x`. */
export function leaseIdText(id: bigint): string {
  return id < 0n ? `-${(-id).toString(16).padStart(15, "0")}` : id.toString(16).padStart(16, "0");
}

/** What `import … from "kvorum"` gives: etcd inside the process, and its client. */
export * from "../client/index.ts";
export { Etcd, type EtcdSnapshot } from "./etcd.ts";
export type { MemberState } from "./member.ts";
export {
  EmbeddedError,
  type EtcdPeers,
  type EtcdPermission,
  EtcdResetError,
  type EtcdSettings,
  type EtcdTls,
  type EtcdUser,
} from "./settings.ts";

import { setting } from "./definition.ts";
import { list, text, uint } from "./kinds.ts";

/** Settings for the audit log. */
export const auditSettings = {
  "audit-log": setting(text, {
    field: "audit.path",
    default: "",
    help: "File for a record of each call and each watch: who, what, with which outcome. Not in etcd.",
  }),
  "audit-log-rotate-size": setting(uint, {
    field: "audit.rotateSizeMb",
    default: "100",
    bounds: { min: 1, max: 1_000_000, reason: "a file needs a size" },
    help: "Megabytes at which another audit file is begun. Not in etcd.",
  }),
  "audit-log-rotate-keep": setting(uint, {
    field: "audit.rotateKeep",
    default: "10",
    help: "Full audit files that are kept; 0 for all. Not in etcd.",
  }),
  "audit-log-methods": setting(list, {
    field: "audit.methods",
    default: "",
    help: "Methods to record, such as 'Put,Txn', or with a minus those to leave out ('-Range'); empty for all. Not in etcd.",
  }),
  "audit-log-users": setting(list, {
    field: "audit.users",
    default: "",
    help: "Users whose calls are recorded, separated by commas; empty for all. Not in etcd.",
  }),
  "audit-log-prefixes": setting(list, {
    field: "audit.prefixes",
    default: "",
    help: "Prefixes of keys; calls for other keys are not recorded. Empty for all. Not in etcd.",
  }),
};

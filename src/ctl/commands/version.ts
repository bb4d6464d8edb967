/** `etcdctl version` */
import { API_VERSION, ETCD_VERSION } from "../../base/versions.ts";
import type { CtlCommand } from "../ctl.ts";

export const version: CtlCommand = {
  name: "version",
  short: "Prints the version of etcdctl",
  run: ({ io }) => io.out(`etcdctl version: ${ETCD_VERSION}\nAPI version: ${API_VERSION}\n`),
};

import { setting } from "./definition.ts";
import { bool } from "./kinds.ts";

/** Settings that give up a guarantee. */
export const unsafeSettings = {
  "force-new-cluster": setting(bool, {
    field: "forceNewCluster",
    default: "false",
    help: "Make a cluster of this member alone from its data, as the last resort after a loss of the quorum.",
  }),
  "unsafe-no-fsync": setting(bool, {
    field: "unsafeNoFsync",
    default: "false",
    help: "Do not sync the log to the disk. A power cut loses acknowledged writes.",
  }),
};

import { setting } from "./definition.ts";
import { bool, duration, set, text } from "./kinds.ts";

/** Settings for the log. */
export const loggingSettings = {
  // All but the last are read together, as `Config.log`.
  logger: setting(text, {
    default: "zap",
    help: "Shape of the log. Only 'zap' is left.",
  }),
  "log-outputs": setting(set, {
    default: "default",
    help: "Where the log goes, separated by commas: 'default' (stderr), 'stderr', 'stdout', 'systemd/journal' or files.",
  }),
  "log-level": setting(text, {
    default: "info",
    help: "Least level written: debug, info, warn, error, panic or fatal.",
  }),
  "log-format": setting(text, {
    default: "json",
    help: "Encoding of the lines: json or console.",
  }),
  "enable-log-rotation": setting(bool, {
    default: "false",
    help: "Set the log file aside when it has grown; needs one file in --log-outputs.",
  }),
  "log-rotation-config-json": setting(text, {
    default: '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}',
    help: "Rotation: maxsize (MB), maxage (days, 0 no limit), maxbackups (0 no limit), localtime, compress (gzip).",
  }),
  "warning-unary-request-duration": setting(duration, {
    field: "warningUnaryRequestDurationMs",
    default: "300ms",
    zeroMeans: 300,
    help: "A request that takes longer is logged.",
  }),
};

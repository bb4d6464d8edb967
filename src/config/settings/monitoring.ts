import { noEffect, setting } from "./definition.ts";
import { bool, text, urls } from "./kinds.ts";

/** Settings for metrics and monitoring. */
export const monitoringSettings = {
  "enable-pprof": setting(bool, {
    field: "enablePprof",
    default: "false",
    help: "Serve Go's profiles under /debug/pprof/.",
    status: noEffect("Go's profiles do not exist here; profile with NODE_OPTIONS='--cpu-prof' or node --inspect"),
  }),
  metrics: setting(text, {
    field: "metrics",
    default: "basic",
    help: "Detail of the metrics: 'basic', or 'extensive' for histograms of gRPC calls.",
  }),
  "listen-metrics-urls": setting(urls, {
    field: "listenMetricsUrls",
    default: "",
    help: "Further addresses that serve /metrics and /health.",
  }),
};

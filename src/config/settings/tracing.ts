import { setting } from "./definition.ts";
import { bool, int, text } from "./kinds.ts";

/** Settings for tracing. */
export const tracingSettings = {
  "enable-distributed-tracing": setting(bool, {
    field: "tracing.enabled",
    default: "false",
    help: "Send traces with OpenTelemetry.",
  }),
  "distributed-tracing-address": setting(text, {
    field: "tracing.address",
    default: "localhost:4317",
    help: "Address of the collector.",
  }),
  "distributed-tracing-service-name": setting(text, {
    field: "tracing.serviceName",
    default: "etcd",
    help: "Service name in the traces, the same for all members.",
  }),
  "distributed-tracing-instance-id": setting(text, {
    field: "tracing.instanceId",
    default: "",
    help: "Instance id in the traces, different for each member.",
  }),
  "distributed-tracing-sampling-rate": setting(int, {
    field: "tracing.samplingRatePerMillion",
    default: "0",
    bounds: { min: 0, max: 1_000_000 },
    help: "Spans recorded of a million.",
  }),
};

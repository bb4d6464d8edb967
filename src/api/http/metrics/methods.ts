/** Calls by method, under the names of go-grpc-prometheus. */
import { CODE_NAMES } from "../../../base/grpc-codes.ts";
import type { Labels, MetricsText } from "../../../base/metrics-text.ts";
import type { MethodStats } from "../../../rpc/contract.ts";
import { methodLabels } from "../../calls/method-labels.ts";

export function writeMethods(text: MetricsText, stats: Iterable<MethodStats>): void {
  const methods = [...stats].map((method) => ({ method, labels: methodLabels(method.path, method.streaming) }));
  const each = (read: (method: MethodStats) => number): (readonly [Labels, number])[] =>
    methods.map(({ method, labels }) => [labels, read(method)] as const);
  text
    .family(
      "grpc_server_started_total",
      "counter",
      "Total number of RPCs started on the server.",
      each((m) => m.started),
    )
    .family(
      "grpc_server_msg_received_total",
      "counter",
      "Total number of RPC stream messages received on the server.",
      each((m) => m.messagesReceived),
    )
    .family(
      "grpc_server_msg_sent_total",
      "counter",
      "Total number of gRPC stream messages sent by the server.",
      each((m) => m.messagesSent),
    )
    .family(
      "grpc_server_handled_total",
      "counter",
      "Total number of RPCs completed on the server, regardless of success or failure.",
      methods.flatMap(({ method, labels }) =>
        CODE_NAMES.map((name, code) => [{ grpc_code: name, ...labels }, method.handled[code] ?? 0] as const),
      ),
    );
}

import { STATUS_CODES } from "node:http";
import type { Url } from "../config/values/url.ts";
import { formatId } from "../membership/member.ts";
import { MEMBER_REMOVED, type PeerContext } from "./context.ts";
import { CLUSTER_ID_MISMATCH, INCOMPATIBLE_VERSION } from "./headers.ts";
import type { PeerResponse } from "./http.ts";

/**
 * The error of a posted message, from the peer's answer; undefined when it was accepted. Also reports when the local
 * member was removed. Source: etcd's `checkPostResponse`.
 */
export function postProblem(
  context: PeerContext,
  peerId: bigint,
  url: Url,
  path: string,
  response: PeerResponse,
): string | undefined {
  const { logger, local } = context;
  const text = response.body.toString("utf8").replace(/\n$/, "");
  switch (response.status) {
    case 204:
      return undefined;
    case 403:
      // A member answers this to a removed member, and also to a message for another member.
      if (text.includes("mismatch member")) return text;
      context.reportRemoved();
      return MEMBER_REMOVED;
    case 412:
      if (text === INCOMPATIBLE_VERSION) {
        logger.error("request sent was ignored by peer", { "remote-peer-id": formatId(peerId) });
      } else if (text === CLUSTER_ID_MISMATCH) {
        logger.error("request sent was ignored due to cluster ID mismatch", {
          "remote-peer-id": formatId(peerId),
          "remote-peer-cluster-id": String(response.headers["x-etcd-cluster-id"] ?? ""),
          "local-member-cluster-id": formatId(local.clusterId),
        });
      } else return `unhandled error ${JSON.stringify(text)} when precondition failed`;
      return text;
    default: {
      const status = STATUS_CODES[response.status] ?? response.status;
      return `unexpected http status ${status} while posting to ${JSON.stringify(`${url.text}${path}`)}`;
    }
  }
}

import { noEffect, setting } from "./definition.ts";
import { bool, choice, choices, duration, set, text, urls } from "./kinds.ts";

/** Settings for the cluster and its formation. */
export const clusteringSettings = {
  "initial-advertise-peer-urls": setting(urls, {
    field: "advertisePeerUrls",
    default: "http://localhost:2380",
    help: "Addresses at which the other members reach this one.",
  }),
  // Kept as given; `parseUrlsByMember` parses it.
  "initial-cluster": setting(text, {
    field: "initialCluster",
    default: "default=http://localhost:2380",
    help: "Members of a new cluster, name=peer-url separated by commas.",
  }),
  "initial-cluster-state": setting(choice(["new", "existing"]), {
    field: "initialClusterState",
    default: "new",
    help: "'new' to found a cluster, 'existing' to join one. Only read by a member without data.",
  }),
  "initial-cluster-token": setting(text, {
    field: "initialClusterToken",
    default: "etcd-cluster",
    help: "Secret word of a new cluster, so that clusters founded from the same addresses stay apart.",
  }),
  "advertise-client-urls": setting(urls, {
    field: "advertiseClientUrls",
    default: "http://localhost:2379",
    help: "Addresses at which clients reach this member. Needed when --listen-client-urls is given.",
  }),
  "discovery-token": setting(text, {
    field: "discovery.token",
    file: "discovery-config.token",
    default: "",
    help: "V3 discovery: token of the cluster to be founded.",
  }),
  // Not empty: v3 discovery.
  "discovery-endpoints": setting(set, {
    field: "discovery.endpoints",
    file: "discovery-config.client.endpoints",
    default: "",
    help: "V3 discovery: endpoints of the etcd that keeps the registry.",
  }),
  "discovery-dial-timeout": setting(duration, {
    field: "discovery.dialTimeoutMs",
    file: "discovery-config.client.dial-timeout",
    default: "2s",
    help: "V3 discovery: longest time to connect.",
  }),
  "discovery-request-timeout": setting(duration, {
    field: "discovery.requestTimeoutMs",
    file: "discovery-config.client.request-timeout",
    default: "5s",
    help: "V3 discovery: longest time for one request.",
  }),
  "discovery-keepalive-time": setting(duration, {
    field: "discovery.keepAliveTimeMs",
    file: "discovery-config.client.keepalive-time",
    default: "2s",
    help: "V3 discovery: time between two pings.",
  }),
  "discovery-keepalive-timeout": setting(duration, {
    field: "discovery.keepAliveTimeoutMs",
    file: "discovery-config.client.keepalive-timeout",
    default: "6s",
    help: "V3 discovery: longest time to wait for the answer to a ping.",
  }),
  "discovery-insecure-transport": setting(bool, {
    field: "discovery.insecureTransport",
    file: "discovery-config.client.secure.insecure-transport",
    default: "true",
    help: "V3 discovery: connect without TLS.",
  }),
  "discovery-insecure-skip-tls-verify": setting(bool, {
    field: "discovery.insecureSkipVerify",
    file: "discovery-config.client.secure.insecure-skip-tls-verify",
    default: "false",
    help: "V3 discovery: do not verify the server's certificate (for tests only).",
  }),
  "discovery-cert": setting(text, {
    field: "discovery.certFile",
    file: "discovery-config.client.secure.cert",
    default: "",
    help: "V3 discovery: file of the client certificate.",
  }),
  "discovery-key": setting(text, {
    field: "discovery.keyFile",
    file: "discovery-config.client.secure.key",
    default: "",
    help: "V3 discovery: file of the client's private key.",
  }),
  "discovery-cacert": setting(text, {
    field: "discovery.caFile",
    file: "discovery-config.client.secure.cacert",
    default: "",
    help: "V3 discovery: file of the authorities that sign the server's certificate.",
  }),
  "discovery-user": setting(text, {
    field: "discovery.user",
    file: "discovery-config.client.auth.username",
    default: "",
    help: "V3 discovery: user, or user:password.",
  }),
  "discovery-password": setting(text, {
    field: "discovery.password",
    file: "discovery-config.client.auth.password",
    default: "",
    secret: true,
    help: "V3 discovery: password, when --discovery-user has none.",
  }),
  // Only checked: the alternatives it selected no longer exist.
  "discovery-fallback": setting(choice(["exit", "proxy"]), {
    file: false,
    default: "exit",
    help: "What to do when discovery fails. Only 'exit' is left; the v2 proxy is gone.",
  }),
  // Not empty: discovery by DNS.
  "discovery-srv": setting(text, {
    field: "discovery.srv",
    default: "",
    help: "DNS domain whose SRV records name the members of a new cluster.",
  }),
  "discovery-srv-name": setting(text, {
    field: "discovery.srvName",
    default: "",
    help: "Suffix of the service name in those SRV records.",
  }),
  "strict-reconfig-check": setting(bool, {
    field: "strictReconfigCheck",
    default: "true",
    help: "Refuse changes of the membership that would lose the quorum.",
  }),
  "pre-vote": setting(bool, {
    field: "preVote",
    default: "true",
    help: "Ask before an election whether it could be won, so that a member that returns disturbs nobody.",
  }),
  // Both together are `Config.autoCompaction`.
  "auto-compaction-retention": setting(text, {
    default: "0",
    help: "How much history automatic compaction leaves; 0 turns it off.",
  }),
  "auto-compaction-mode": setting(text, {
    default: "periodic",
    help: "'periodic': the retention is a time ('5m'; a bare number counts hours). 'revision': a number of revisions.",
  }),
  "v2-deprecation": setting(
    choices(["write-only", "write-only-skip-check", "write-only-drop-data", "gone"], "write-only"),
    {
      default: "write-only",
      deprecated:
        "is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.",
      help: "Stage of the v2 store's removal. Deprecated; etcd ignores it and so does kvorum.",
      status: noEffect("there is no v2 store"),
    },
  ),
};

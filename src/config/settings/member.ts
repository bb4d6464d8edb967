import { noEffect, setting } from "./definition.ts";
import { bool, duration, features, int, int64, text, uint, uint32, uint64, urls } from "./kinds.ts";

/** Settings for the member itself. */
export const memberSettings = {
  name: setting(text, {
    field: "name",
    default: "default",
    help: "Name of this member, unique in its cluster.",
  }),
  "data-dir": setting(text, {
    field: "dataDir",
    default: "",
    help: "Directory of the member's data. Empty means the member's name and '.etcd', in the working directory.",
  }),
  // Empty means `<data-dir>/member/wal`.
  "wal-dir": setting(text, {
    field: "walDir",
    default: "",
    help: "Directory of the write-ahead log, when it has a disk of its own.",
  }),
  "snapshot-count": setting(uint64, {
    field: "snapshotCount",
    default: "10000",
    help: "Committed transactions between two snapshots of the raft log.",
  }),
  // Also the length of a raft tick.
  "heartbeat-interval": setting(uint, {
    field: "tickMs",
    default: "100",
    bounds: { above: 0 },
    help: "Milliseconds between two heartbeats of the leader.",
  }),
  "election-timeout": setting(uint, {
    field: "electionMs",
    default: "1000",
    bounds: { above: 0, max: 50_000 },
    help: "Milliseconds without a heartbeat after which a follower calls an election.",
  }),
  "initial-election-tick-advance": setting(bool, {
    field: "initialElectionTickAdvance",
    default: "true",
    help: "Start most of the way through the first election timeout, for a faster first election.",
  }),
  "listen-peer-urls": setting(urls, {
    field: "listenPeerUrls",
    default: "http://localhost:2380",
    help: "Addresses to listen on for other members, separated by commas.",
  }),
  "listen-client-urls": setting(urls, {
    field: "listenClientUrls",
    default: "http://localhost:2379",
    help: "Addresses to listen on for clients: gRPC, and HTTP unless --listen-client-http-urls is given.",
  }),
  "listen-client-http-urls": setting(urls, {
    field: "listenClientHttpUrls",
    default: "",
    help: "Addresses for HTTP clients only; HTTP is then no longer served on --listen-client-urls.",
  }),
  "max-snapshots": setting(uint, {
    field: "maxSnapFiles",
    default: "5",
    deprecated: "is deprecated in 3.6 and will be decommissioned in 3.8.",
    help: "Snapshot files to keep; 0 keeps all. Deprecated in v3.6, to be removed in v3.8.",
  }),
  "max-wals": setting(uint, {
    field: "maxWalFiles",
    default: "5",
    help: "Write-ahead log files to keep; 0 keeps all.",
  }),
  "memory-mlock": setting(bool, {
    field: "memoryMlock",
    default: "false",
    help: "Keep the member's pages in RAM.",
    status: noEffect("a JavaScript heap cannot be locked; forbid swapping with MemorySwapMax=0 in the systemd unit"),
  }),
  "quota-backend-bytes": setting(int64, {
    field: "quotaBackendBytes",
    default: "0",
    zeroMeans: 2 * 1024 ** 3,
    help: "Bytes the database may take before the member refuses writes. 0 means 2 GiB, negative means no limit.",
  }),
  "backend-bbolt-freelist-type": setting(text, {
    default: "",
    help: "How the database's free pages are kept in memory, 'array' or 'map'.",
    status: noEffect("one bit a page finds free runs of pages as fast as 'map'; the file is the same with either"),
  }),
  "backend-batch-interval": setting(duration, {
    field: "backendBatchIntervalMs",
    default: "0s",
    zeroMeans: 100,
    help: "Longest time before the backend commits its transaction. 0 means 100ms.",
  }),
  "backend-batch-limit": setting(int, {
    field: "backendBatchLimit",
    default: "0",
    zeroMeans: 10_000,
    help: "Most operations before the backend commits its transaction. 0 means 10000.",
  }),
  "max-txn-ops": setting(uint, {
    field: "maxTxnOps",
    default: "128",
    help: "Most operations in one transaction.",
  }),
  "max-long-requests": setting(uint, {
    field: "turns.activeMax",
    default: "128",
    bounds: { above: 0, reason: "without any, long reads would wait for ever" },
    help: "Maximum reads in progress that take more than one turn of the event loop; others wait. Not in etcd.",
  }),
  "max-long-requests-per-client": setting(uint, {
    field: "turns.activePerOwnerMax",
    default: "32",
    bounds: { above: 0, reason: "without any, long reads would wait for ever" },
    help: "The same for one user or, without users, for one connection. Not in etcd.",
  }),
  "max-client-connections": setting(uint, {
    field: "maxClientConnections",
    default: "0",
    help: "Most open connections of clients, on all listeners but the peers'. 0 means as many as the limit of open files allows. Not in etcd.",
  }),
  "max-request-bytes": setting(uint, {
    field: "maxRequestBytes",
    default: "1572864",
    bounds: { recommendedMax: 10 * 1024 * 1024 },
    help: "Largest request of a client, in bytes.",
  }),
  "max-concurrent-streams": setting(uint32, {
    field: "maxConcurrentStreams",
    default: "4294967295",
    help: "Most streams that one client connection may have open.",
  }),
  "grpc-keepalive-min-time": setting(duration, {
    field: "keepalive.minTimeMs",
    default: "5s",
    help: "Shortest time between two pings of a client; one that pings faster is disconnected.",
  }),
  "grpc-keepalive-interval": setting(duration, {
    field: "keepalive.intervalMs",
    default: "2h",
    help: "How often the server pings an idle client; 0 never.",
  }),
  "grpc-keepalive-timeout": setting(duration, {
    field: "keepalive.timeoutMs",
    default: "20s",
    help: "How long the server waits for the answer to a ping before it closes the connection.",
  }),
  "socket-reuse-port": setting(bool, {
    field: "socketReusePort",
    file: "socket-options.reuse-port",
    default: "false",
    help: "Set SO_REUSEPORT on listening sockets. Needs Node 22.12, or 23.1 and later.",
  }),
  "socket-reuse-address": setting(bool, {
    field: "socketReuseAddress",
    file: "socket-options.reuse-address",
    default: "false",
    help: "Set SO_REUSEADDR on listening sockets.",
    status: noEffect("Node sets SO_REUSEADDR on every listening socket"),
  }),
  "enable-grpc-gateway": setting(bool, {
    field: "enableGrpcGateway",
    default: "true",
    help: "Serve the JSON gateway under /v3/.",
  }),
  "raft-read-timeout": setting(duration, {
    field: "raftReadTimeoutMs",
    file: false,
    default: "5s",
    bounds: { raisedTo: 5000 },
    help: "Time without data after which a connection between members is given up; at least 5s.",
  }),
  "raft-write-timeout": setting(duration, {
    field: "raftWriteTimeoutMs",
    file: false,
    default: "5s",
    bounds: { raisedTo: 5000 },
    help: "Time that a write to another member may take; at least 5s.",
  }),
  "feature-gates": setting(features, {
    field: "features",
    default: "",
    help: "Switches of alpha and beta features, Name=true|false:",
  }),
};

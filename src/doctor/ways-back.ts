/** How to recover a member with unusable data, the way that loses least first. */
export const WAYS_BACK: readonly string[] = [
  "keep a copy of the directory: nothing below needs it, but it may hold what nothing else does",
  "if the other members have a quorum: etcdctl member remove ID, move the directory away, etcdctl member add NAME --peer-urls=…, and start it with --initial-cluster-state=existing: it gets everything from the leader",
  "if they have none: restore the whole cluster from the newest backup with etcdutl snapshot restore, on every member",
  "without a backup: etcdutl snapshot restore DATA-DIR/member/snap/db --skip-hash-check … makes a new cluster of what the database holds",
];

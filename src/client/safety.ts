/**
 * Which methods of etcd change nothing, so that they may be sent again whatever became of them: for those who forward
 * calls by their method. What depends on the request besides is known to the caller alone: a transaction that only reads,
 * a question for alarms.
 */
import type { MethodType } from "../base/protobuf.ts";
import { AuthService, ClusterService, KVService, LeaseService, MaintenanceService } from "../proto/etcdserverpb.ts";
import { ElectionService } from "../proto/v3electionpb.ts";

/** Whether a call may be carried out twice: `read` changes nothing. */
export type Safety = "read" | "write";

const READS: ReadonlySet<string> = new Set<string>(
  [
    KVService.Range,
    LeaseService.LeaseTimeToLive,
    LeaseService.LeaseLeases,
    ClusterService.MemberList,
    MaintenanceService.Status,
    MaintenanceService.Hash,
    MaintenanceService.HashKV,
    AuthService.AuthStatus,
    AuthService.UserGet,
    AuthService.UserList,
    AuthService.RoleGet,
    AuthService.RoleList,
    ElectionService.Leader,
  ].map(({ path }) => path),
);

/** Of a request of which no more than its method is known. */
export function safetyOf({ path }: Pick<MethodType, "path">): Safety {
  return READS.has(path) ? "read" : "write";
}

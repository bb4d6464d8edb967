/** Fresh clusters with the data that the cases of the stalls suite expect. */
import { Permission_Type as PermissionType } from "../../src/proto/authpb.ts";
import { AuthService, KVService, LeaseService } from "../../src/proto/etcdserverpb.ts";
import { type Cluster, type Member, startCluster } from "../../test/harness/cluster.ts";
import type { Program } from "../../test/harness/programs.ts";
import { generate } from "../generator.ts";
import type { Side } from "../report.ts";
import type { DataSet, Sizes } from "./case.ts";
import { PLAIN_USER } from "./clients.ts";
import { portOf } from "./member.ts";
import { fillKeys } from "./upkeep.ts";

export interface Loaded {
  readonly cluster: Cluster;
  readonly leader: Member;
  readonly token: string | undefined;
  readonly tls: boolean;
}

export interface LoadOptions {
  readonly side: Side;
  readonly program: Program;
  readonly members: number;
  readonly sizes: Sizes;
  readonly scratchDir: string;
}

const LARGE_VALUE_BYTES = 500_000;
const USERS_LEASES = 2_000;
const ROOT = { name: "root", password: "root-password" };
/** The limits on requests are for the cases with many operations in one transaction. */
const SERVER_ARGS = [
  ...["--quota-backend-bytes", String(8 * 2 ** 30), "--heartbeat-interval", "100"],
  ...["--max-txn-ops", "100000", "--max-request-bytes", String(16 * 2 ** 20)],
];

export async function load(data: DataSet, options: LoadOptions): Promise<Loaded> {
  const { side, program, members, sizes, scratchDir } = options;
  const tls = data === "tls";
  const spec = { kind: side, program };
  const cluster = await startCluster({
    members: Array.from({ length: members }, () => spec),
    args: SERVER_ARGS,
    tempDir: scratchDir,
    ...(tls ? { tls: { clientCertificates: false } } : {}),
  });
  try {
    const leader = await cluster.leader();
    const port = portOf(leader);
    let token: string | undefined;
    if (data === "keys") await fillKeys(port, sizes.keys);
    else if (data === "large") await fillLarge(port, sizes.largeMib);
    else if (data === "users") token = await makeUsers(leader);
    // Lets the log and the backend become idle.
    await new Promise((resolve) => setTimeout(resolve, 1000));
    return { cluster, leader, token, tls };
  } catch (error) {
    await cluster.close();
    throw error;
  }
}

async function fillLarge(port: number, mib: number): Promise<void> {
  const count = Math.ceil((mib * 1024 * 1024) / LARGE_VALUE_BYTES / 2);
  const shape = { port, connections: 1, concurrency: 2, opsPerTxn: 2, valueSize: LARGE_VALUE_BYTES };
  await generate({ kind: "fill", ...shape, count }, 300);
}

/** Returns root's token. */
async function makeUsers({ client }: Member): Promise<string> {
  await client.unary(AuthService.UserAdd, ROOT);
  await client.unary(AuthService.RoleAdd, { name: "root" });
  await client.unary(AuthService.UserGrantRole, { user: "root", role: "root" });
  await client.unary(AuthService.UserAdd, PLAIN_USER);
  await client.unary(AuthService.RoleAdd, { name: "plain" });
  const perm = { permType: PermissionType.READWRITE, key: Buffer.from("/leased/"), rangeEnd: Buffer.from("/leased0") };
  await client.unary(AuthService.RoleGrantPermission, { name: "plain", perm });
  await client.unary(AuthService.UserGrantRole, { user: PLAIN_USER.name, role: "plain" });
  for (let i = 0; i < USERS_LEASES; i++) {
    const id = BigInt(i + 1);
    await client.unary(LeaseService.LeaseGrant, { id, ttl: 3600 });
    await client.unary(KVService.Put, { key: Buffer.from(`/leased/${i}`), value: Buffer.from("v"), lease: id });
  }
  await client.unary(AuthService.AuthEnable, {});
  return (await client.unary(AuthService.Authenticate, ROOT)).token;
}

/**
 * A cluster that runs, over its client endpoints: who its members are, how each does, and the calls that change that. A call
 * goes to any member that answers.
 */
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import { Code } from "../../base/grpc-codes.ts";
import { connect, type RawClient, RpcError, type TlsOptions } from "../../client/raw.ts";
import { type Member as ClusterMember, ClusterService, MaintenanceService } from "../../proto/etcdserverpb.ts";
import { type Context, DeployError } from "../common/context.ts";
import { readRequired, readText } from "../common/files.ts";
import { type Look, lookAt } from "../common/look.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";
import { authorityPair, clientPair, trustedBesides } from "../pki/layout.ts";

export type { ClusterMember };

const LOOK_MS = 5_000;
const CALL_MS = 10_000;
const RETRY_MS = 200;
/** How long what is refused for the moment is asked for again. */
const PATIENCE_MS = 60_000;
const DEFRAGMENT_MS = 3_600_000;

export class Cluster {
  readonly inventory: Inventory;
  readonly clock: Clock;
  /** Asked first: others may be down. */
  #answered: Member | undefined;

  constructor({ clock }: Pick<Context, "clock">, inventory: Inventory) {
    this.clock = clock;
    this.inventory = inventory;
  }

  /** In the order of the inventory. */
  looks(members: readonly Member[] = this.inventory.members): Promise<Look[]> {
    const endpoints = members.map((member) => clientUrl(this.inventory, member));
    return lookAt(endpoints, tlsOf(this.inventory), LOOK_MS, this.clock);
  }

  async look(member: Member): Promise<Look> {
    return (await this.looks([member]))[0]!;
  }

  /** Who the members are, as a majority knows it; undefined when none answers. */
  async members(): Promise<ClusterMember[] | undefined> {
    const request = { linearizable: true };
    try {
      const { members } = await this.#any((client) =>
        client.unary(ClusterService.MemberList, request, { timeoutMs: LOOK_MS }),
      );
      return members;
    } catch (error) {
      if (error instanceof RpcError) return undefined;
      throw error;
    }
  }

  /** Throws DeployError when there is no majority that says it. */
  async membersNow(): Promise<ClusterMember[]> {
    const members = await this.members();
    if (members !== undefined) return members;
    throw new DeployError(
      "no member says who the members are, so there is no majority: look at kvorum cluster status; when it is lost for good, kvorum cluster recover",
    );
  }

  /** As the cluster knows this member of the inventory: by its peer URL. */
  async find(member: Member): Promise<ClusterMember | undefined> {
    const url = peerUrl(this.inventory, member);
    return (await this.membersNow()).find(({ peerUrls }) => peerUrls.includes(url));
  }

  async addLearner(url: string): Promise<void> {
    await this.#patiently(
      (client) => client.unary(ClusterService.MemberAdd, { peerUrls: [url], isLearner: true }, { timeoutMs: CALL_MS }),
      /Peer URLs already exists/,
    );
  }

  /** Waits until it has caught up. */
  async promote(id: bigint): Promise<void> {
    await this.#patiently(
      (client) => client.unary(ClusterService.MemberPromote, { id }, { timeoutMs: CALL_MS }),
      /can only promote a learner/,
    );
  }

  async remove(id: bigint): Promise<void> {
    await this.#patiently(
      (client) => client.unary(ClusterService.MemberRemove, { id }, { timeoutMs: CALL_MS }),
      /member not found/,
    );
  }

  /** The inventory's member that leads; undefined when none does, or one that the inventory does not have. */
  async leader(): Promise<Member | undefined> {
    const looks = await this.looks();
    const at = looks.findIndex(({ status }) => status !== undefined && status.leader === status.header?.memberId);
    return this.inventory.members[at];
  }

  /** Makes another member lead, the one that is furthest; waits until it does. Throws DeployError. */
  async moveLeader(from: Member, to?: Member): Promise<Member> {
    const { members } = this.inventory;
    const looks = await this.looks();
    const candidates = members
      .map((member, i) => ({ member, look: looks[i]! }))
      .filter(({ member, look }) => member !== from && look.tookMs !== undefined && look.status?.isLearner === false)
      .filter(({ member }) => to === undefined || member === to)
      .sort((a, b) => Number(b.look.status!.raftAppliedIndex) - Number(a.look.status!.raftAppliedIndex));
    const best = candidates[0];
    if (best === undefined)
      throw new DeployError(
        `no ${to === undefined ? "other member" : to.name} that could lead instead of ${from.name} is healthy: look at kvorum cluster status`,
      );
    await this.#at(from, (client) =>
      client.unary(
        MaintenanceService.MoveLeader,
        { targetId: best.look.status!.header!.memberId },
        { timeoutMs: CALL_MS },
      ),
    );
    await this.until(`${best.member.name} leads`, async () => (await this.leader()) === best.member);
    return best.member;
  }

  async defragment(member: Member): Promise<void> {
    await this.#at(member, (client) => client.unary(MaintenanceService.Defragment, {}, { timeoutMs: DEFRAGMENT_MS }));
  }

  /** What a caller needs of any member, asked again while it is refused for the moment. Throws DeployError. */
  async ask(what: (client: RawClient) => Promise<unknown>, meant?: RegExp): Promise<void> {
    await this.#patiently(what, meant);
  }

  /** What any member answers. Throws DeployError. */
  async answer<T>(what: (client: RawClient) => Promise<T>): Promise<T> {
    try {
      return await this.#any(what);
    } catch (error) {
      throw error instanceof RpcError ? new DeployError(`the cluster refuses it: ${messageOf(error)}`) : error;
    }
  }

  /** Throws DeployError when it does not become so. */
  async until(what: string, condition: () => Promise<boolean>): Promise<void> {
    const endMs = this.clock.nowMs() + PATIENCE_MS;
    while (!(await condition())) {
      if (this.clock.nowMs() > endMs)
        throw new DeployError(`${what}: this has not come about in ${PATIENCE_MS / 1000} s; repeat the command`);
      await this.pause();
    }
  }

  pause(): Promise<void> {
    return new Promise((resolve) => this.clock.after(RETRY_MS, resolve));
  }

  async #at<T>(member: Member, what: (client: RawClient) => Promise<T>): Promise<T> {
    const client = connect(clientUrl(this.inventory, member), { tls: tlsOf(this.inventory) });
    try {
      await client.ready(LOOK_MS);
      return await what(client);
    } catch (error) {
      throw error instanceof RpcError ? new DeployError(`${member.name}: ${error.details}`) : error;
    } finally {
      client.close();
    }
  }

  /** The first member that answers decides; one that cannot be reached or has no leader does not. */
  async #any<T>(what: (client: RawClient) => Promise<T>): Promise<T> {
    let failed: unknown;
    const { members } = this.inventory;
    const order = [
      ...members.filter((each) => each === this.#answered),
      ...members.filter((each) => each !== this.#answered),
    ];
    for (const member of order) {
      const client = connect(clientUrl(this.inventory, member), { tls: tlsOf(this.inventory) });
      try {
        await client.ready(LOOK_MS);
        const answer = await what(client);
        this.#answered = member;
        return answer;
      } catch (error) {
        if (!(error instanceof RpcError) || !isElsewhere(error)) throw error;
        failed ??= error;
      } finally {
        client.close();
      }
    }
    throw failed;
  }

  /** A cluster refuses changes for some seconds after others, and a promotion until the learner has caught up. */
  async #patiently<T>(what: (client: RawClient) => Promise<T>, meant?: RegExp): Promise<T | undefined> {
    const endMs = this.clock.nowMs() + PATIENCE_MS;
    for (;;) {
      try {
        return await this.#any(what);
      } catch (error) {
        if (!(error instanceof RpcError)) throw error;
        // An earlier attempt was carried out, and its answer lost.
        if (meant?.test(error.details)) return undefined;
        const isTemporary =
          isElsewhere(error) ||
          /unhealthy cluster|in sync with leader|not enough started|leader changed|too many learner/.test(
            error.details,
          );
        if (!isTemporary || this.clock.nowMs() > endMs)
          throw new DeployError(`the cluster refuses it: ${messageOf(error)}`);
      }
      await this.pause();
    }
  }
}

/** Another member may know better. */
const isElsewhere = ({ code, details }: RpcError): boolean =>
  (code === Code.UNAVAILABLE || code === Code.DEADLINE_EXCEEDED) && !/unhealthy cluster/.test(details);

export function tlsOf({ certificates: { dir } }: Inventory): TlsOptions {
  const { cert, key } = clientPair(dir, "root");
  const read = (path: string) => Buffer.from(readRequired(path, "the client certificate of the cluster"));
  const besides = Buffer.from(readText(trustedBesides(dir)) ?? "");
  return { ca: Buffer.concat([read(authorityPair(dir).cert), besides]), cert: read(cert), key: read(key) };
}

const urlOf = (host: string, port: number): string => `https://${host.includes(":") ? `[${host}]` : host}:${port}`;
export const clientUrl = ({ clientPort }: Inventory, { address }: Member): string => urlOf(address, clientPort);
export const peerUrl = ({ peerPort }: Inventory, { address }: Member): string => urlOf(address, peerPort);

/** Many clients, leases and watches. */
import { connect as connectTcp, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import {
  AuthService,
  KVService,
  LeaseService,
  PutRequest,
  RequestOp,
  WatchCreateRequest,
  WatchRequest,
  WatchResponse,
  WatchService,
} from "../../src/proto/etcdserverpb.ts";
import { framed, H2Client } from "../load/h2-client.ts";
import { keyOf } from "../load/unary.ts";
import { type Bench, type Case, LIMIT_MS } from "./case.ts";

const options = { timeoutMs: LIMIT_MS };
const leased = { key: Buffer.from("/leased/"), rangeEnd: Buffer.from("/leased0") };
const PUTS_PER_TXN = 100;
/** Requests in flight during preparation. */
const AT_ONCE = 200;

const leasedKey = (index: number): Buffer => Buffer.from(`/leased/${index}`);

/** Calls `each` for 0 to `count` - 1, many concurrently. */
async function many(count: number, each: (index: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const one = async (): Promise<void> => {
    while (next < count) await each(next++);
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, one));
}

/** Puts `count` keys, each attached to its lease by `leaseOf`. */
export async function putLeased(bench: Bench, count: number, leaseOf: (index: number) => bigint): Promise<void> {
  const { server, token } = bench;
  const metadata = token === undefined ? {} : { token };
  await many(Math.ceil(count / PUTS_PER_TXN), (txn) => {
    const success = [];
    for (let i = txn * PUTS_PER_TXN; i < Math.min(count, (txn + 1) * PUTS_PER_TXN); i++) {
      const requestPut = PutRequest.create({ key: leasedKey(i), value: Buffer.from("v"), lease: leaseOf(i) });
      success.push(RequestOp.create({ requestPut }));
    }
    return server.client.unary(KVService.Txn, { success }, { metadata, timeoutMs: LIMIT_MS });
  });
}

const FIRST_LEASE = 1000n;

const revoke: Case = {
  name: "revoke",
  what: "revocation of one lease with --leases keys",
  data: "empty",
  async prepare(bench) {
    await bench.server.client.unary(LeaseService.LeaseGrant, { id: FIRST_LEASE, ttl: 3600 }, options);
    await putLeased(bench, bench.sizes.leases, () => FIRST_LEASE);
  },
  run: async ({ server }) => void (await server.client.unary(LeaseService.LeaseRevoke, { id: FIRST_LEASE }, options)),
};

/** Long enough to grant all of them. */
const EXPIRY_SECONDS = 40;
let firstGrantMs = 0;

const expire: Case = {
  name: "expire",
  what: "--leases leases with a key each that end together, until all are gone",
  data: "empty",
  spoils: true,
  async prepare(bench) {
    const { server, sizes } = bench;
    firstGrantMs = performance.now();
    await many(sizes.leases, (i) =>
      server.client.unary(LeaseService.LeaseGrant, { id: FIRST_LEASE + BigInt(i), ttl: EXPIRY_SECONDS }, options),
    );
    await putLeased(bench, sizes.leases, (i) => FIRST_LEASE + BigInt(i));
    const leftMs = firstGrantMs + EXPIRY_SECONDS * 1000 - 1000 - performance.now();
    if (leftMs < 0) bench.note("granting took longer than the leases live");
    else await sleep(leftMs);
  },
  async run({ server, note }) {
    const endMs = performance.now() + LIMIT_MS;
    for (;;) {
      const { count } = await server.client.unary(KVService.Range, { ...leased, countOnly: true }, options);
      if (count === 0 || performance.now() > endMs) {
        const seconds = (performance.now() - firstGrantMs) / 1000 - EXPIRY_SECONDS;
        return note(`${count} left ${seconds.toFixed(1)} s after the first should have ended`);
      }
      await sleep(100);
    }
  },
};

/** In the data set "users". */
export const PLAIN_USER = { name: "plain", password: "plain-password" };
const LISTINGS = 200;

const listLeases: Case = {
  name: "lease-leases",
  what: `LeaseLeases of 2,000 leases by a plain user, ${LISTINGS} times`,
  data: "users",
  async run({ server }) {
    const { token } = await server.client.unary(AuthService.Authenticate, PLAIN_USER, options);
    for (let i = 0; i < LISTINGS; i++) {
      await server.client.unary(LeaseService.LeaseLeases, {}, { metadata: { token }, timeoutMs: LIMIT_MS });
    }
  },
};

const LOGINS_AT_ONCE = 50;

const logins: Case = {
  name: "logins",
  what: `${LOGINS_AT_ONCE} clients that log in over and over, every second time with a wrong password`,
  data: "users",
  async run({ server, sizes, note }) {
    const endMs = performance.now() + sizes.seconds * 1000;
    let done = 0;
    const client = async (index: number): Promise<void> => {
      for (let i = index; performance.now() < endMs; i++) {
        const password = i % 2 === 0 ? PLAIN_USER.password : "wrong";
        await server.client.unary(AuthService.Authenticate, { ...PLAIN_USER, password }, options).catch(() => {});
        done++;
      }
    };
    await Promise.all(Array.from({ length: LOGINS_AT_ONCE }, (_, i) => client(i)));
    note(`${Math.round(done / sizes.seconds)} logins/s`);
  },
};

const handshakes: Case = {
  name: "handshakes",
  what: "--handshakes connections that say hello in TLS and nothing more",
  data: "tls",
  async run({ port, sizes }) {
    const hello = await clientHello();
    const sockets: Socket[] = [];
    for (let i = 0; i < sizes.handshakes; i++) {
      const socket = connectTcp({ port, host: "127.0.0.1" });
      socket.on("error", () => {});
      socket.on("connect", () => socket.write(hello));
      sockets.push(socket);
    }
    await sleep(sizes.seconds * 1000);
    for (const socket of sockets) socket.destroy();
  },
};

/** The first bytes sent by a TLS client. */
function clientHello(): Promise<Buffer> {
  return new Promise((resolve) => {
    const wire = new Duplex({ read() {}, write: (bytes: Buffer) => resolve(bytes) });
    connectTls({ socket: wire, servername: "localhost" }).on("error", () => {});
  });
}

const watches: Case = {
  name: "watches",
  what: "--watches watches on one stream, opened, ended, opened again from where they began, and ended",
  data: "empty",
  async run({ server, port, sizes, note }) {
    const { header } = await server.client.unary(KVService.Range, { key: Buffer.from("a") }, options);
    for (const startRevision of [0, header!.revision + 1]) {
      const beganMs = performance.now();
      await openWatches(port, sizes.watches, startRevision);
      note(`${startRevision === 0 ? "opened" : "reopened"} in ${Math.round(performance.now() - beganMs)} ms`);
    }
  },
};

function openWatches(port: number, count: number, startRevision: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let created = 0;
    const timer = setTimeout(
      () => done(new Error(`${created} of ${count} watches opened in ${LIMIT_MS} ms`)),
      LIMIT_MS,
    );
    const client = new H2Client(port, WatchService.Watch.path, {
      message(_call, buffer, start, end) {
        if (WatchResponse.decode(buffer, start, end).created && ++created === count) done();
      },
      ended: (_call, status) => done(new Error(`the stream ended with ${status} after ${created} watches`)),
    });
    function done(error?: Error): void {
      clearTimeout(timer);
      client.close();
      if (error === undefined) resolve();
      else reject(error);
    }
    const call = client.open(0);
    for (let i = 0; i < count; i++) {
      const createRequest = WatchCreateRequest.create({ key: keyOf(i), startRevision });
      client.send(call, framed(WatchRequest.encode(WatchRequest.create({ createRequest }))), false);
    }
  });
}

export const clientCases: readonly Case[] = [revoke, expire, listLeases, logins, handshakes, watches];

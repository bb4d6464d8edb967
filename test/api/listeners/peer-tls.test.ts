import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, type TestContext, test } from "node:test";
import * as tls from "node:tls";
import { connectionLimits } from "../../../src/api/listeners/connection-limit.ts";
import type { ListenAddress } from "../../../src/api/listeners/listeners.ts";
import { PeerSide } from "../../../src/api/listeners/peer-side.ts";
import type { PeerTls } from "../../../src/api/listeners/peer-tls.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { MessageType } from "../../../src/proto/raftpb.ts";
import { NO_TLS } from "../../../src/rpc/tls/context.ts";
import { Authority, writePair } from "../../harness/certificates.ts";
import { serverOptions, tempDir } from "../../harness/in-process.ts";
import { MemoryLogger } from "../../harness/memory-logger.ts";
import { waitFor } from "../../harness/wait.ts";
import { CLUSTER_ID, message, RecordingReceiver } from "../../peer/loopback.ts";

const dir = tempDir();
after(() => dir.remove());
const ca = await Authority.create("ca");
const caFile = join(dir.path, "ca.crt");
writeFileSync(caFile, ca.pem);
const files = writePair(dir.path, "member", await ca.issue({ cn: "member" }));

const secure: ListenAddress = {
  kind: "tcp",
  host: "127.0.0.1",
  port: 0,
  name: "127.0.0.1",
  url: "https://127.0.0.1:0",
};

const peerTls: PeerTls = {
  ...NO_TLS,
  ...files,
  trustedCaFile: caFile,
  clientCertAuth: true,
  minVersion: "TLS1.2",
  flagPrefix: "peer-",
  autoTls: false,
  selfSignedCertValidityYears: 1,
  serverName: "",
};

interface Member {
  readonly id: bigint;
  readonly side: PeerSide;
  readonly url: string;
  readonly receiver: RecordingReceiver;
  readonly logger: MemoryLogger;
}

async function member(
  t: TestContext,
  id: bigint,
  options: Partial<PeerTls> = {},
  listen: ListenAddress = secure,
): Promise<Member> {
  const logger = new MemoryLogger();
  const own = tempDir();
  const side = await PeerSide.open(
    { listenPeer: [listen], peerTls: { ...peerTls, ...options }, raftReadTimeoutMs: 5000, raftWriteTimeoutMs: 5000 },
    serverOptions(own.path, { logger }),
    connectionLimits({ clientsMax: 0, clock: systemClock, logger }).peers,
  );
  const url = side.addresses[0]!;
  const receiver = new RecordingReceiver();
  side.transport.start(receiver, { id, clusterId: CLUSTER_ID, urls: [url] });
  side.serve([]);
  t.after(async () => {
    await side.close();
    own.remove();
  });
  return { id, side, url, receiver, logger };
}

const introduce = (one: Member, other: Member): void => {
  one.side.transport.addPeer({ id: other.id, urls: [other.url] });
  other.side.transport.addPeer({ id: one.id, urls: [one.url] });
};

const beat = (from: Member, to: Member): void =>
  from.side.transport.send([message({ type: MessageType.MsgHeartbeat, from: from.id, to: to.id })]);

const connected = (...members: Member[]): Promise<unknown> =>
  waitFor("all streams are open", () =>
    members.every(
      ({ logger }) =>
        logger.lines.filter((line) => line.message === "established TCP streaming connection with remote peer")
          .length >= 4,
    ),
  );

const refusal = (one: Member): Promise<Readonly<Record<string, unknown>>> =>
  waitFor("the refusal is logged", () =>
    one.logger.lines.find((line) => line.message === "rejected connection on peer endpoint"),
  ).then(({ fields }) => fields);

/** The errors that prevented members from connecting. */
const problem = (one: Member, pattern: RegExp): Promise<unknown> =>
  waitFor(`${pattern} is logged`, () => one.logger.lines.some(({ fields }) => pattern.test(String(fields["error"]))));

describe("members that use TLS with each other", () => {
  test("exchange messages over streams, once each has presented a certificate of the CA", async (t) => {
    const [a, b] = [await member(t, 1n), await member(t, 2n)];
    assert.match(a.url, /^https:\/\/127\.0\.0\.1:\d+$/);
    introduce(a, b);
    await connected(a, b);
    for (let i = 0; i < 10; i++) beat(a, b);
    await waitFor("the messages have come", () => b.receiver.messages.length === 10);
    assert.ok(a.logger.has("starting with peer TLS"));
    const serving = a.logger.lines.find((line) => line.message === "serving peer traffic");
    assert.equal(`https://${serving?.fields["address"]}`, a.url);
  });

  test("refuse a certificate of another CA, in both directions", async (t) => {
    const other = await Authority.create("other");
    const strange = writePair(dir.path, "strange", await other.issue());
    const [a, b] = [await member(t, 1n), await member(t, 2n, strange)];
    introduce(a, b);
    beat(a, b);
    beat(b, a);
    await refusal(a);
    await problem(a, /x509: certificate signed by unknown authority/);
    await waitFor("both posts have failed", () => a.receiver.unreachable.length + b.receiver.unreachable.length === 2);
    assert.equal(a.receiver.messages.length + b.receiver.messages.length, 0);
    assert.equal(a.side.transport.activeSince(2n), undefined);
  });

  test("refuse a missing certificate, plain text, and addresses that the certificate is not valid for", async (t) => {
    const a = await member(t, 1n);
    const port = Number(new URL(a.url).port);
    const bare = tls.connect({ host: "127.0.0.1", port, ca: ca.pem });
    bare.on("error", () => {});
    assert.ok(await refusal(a));
    bare.destroy();
    const elsewhere = writePair(dir.path, "elsewhere", await ca.issue({ names: ["10.9.9.9"] }));
    const b = await member(t, 2n, elsewhere);
    introduce(a, b);
    await problem(a, /x509: certificate is valid for 10\.9\.9\.9, not 127\.0\.0\.1/);
    assert.equal(a.side.transport.activeSince(2n), undefined);
  });

  test("check the common name required by --peer-cert-allowed-cn, at both ends", async (t) => {
    const stranger = writePair(dir.path, "stranger", await ca.issue({ cn: "stranger" }));
    const a = await member(t, 1n, { allowedCns: ["member"] });
    const b = await member(t, 2n, stranger);
    const c = await member(t, 3n, { allowedCns: ["member"] });
    introduce(a, b);
    introduce(a, c);
    assert.equal((await refusal(a))["error"], "client certificate authentication failed");
    await problem(a, /client certificate authentication failed/);
    await waitFor("the right one is active", () => a.side.transport.activeSince(3n) !== undefined);
    beat(c, a);
    await waitFor("its message has come", () => a.receiver.messages.length === 1);
    assert.equal(a.side.transport.activeSince(2n), undefined);
  });

  test("present --peer-client-cert-file to others, and expect the name given by discovery", async (t) => {
    const onlyServer = writePair(dir.path, "srv", await ca.issue({ names: ["srv.example"], usages: ["server"] }));
    const onlyClient = writePair(dir.path, "cli", await ca.issue({ names: ["127.0.0.1"], usages: ["client"] }));
    const options = {
      ...onlyServer,
      clientCertFile: onlyClient.certFile,
      clientKeyFile: onlyClient.keyFile,
      serverName: "srv.example",
    };
    const [a, b] = [await member(t, 1n, options), await member(t, 2n, options)];
    introduce(a, b);
    await connected(a, b);
  });

  test("refuse certificates that --peer-crl-file revokes", async (t) => {
    const crlFile = join(dir.path, "revoked.crl");
    writeFileSync(crlFile, await ca.revoke("77"));
    const revoked = writePair(dir.path, "revoked", await ca.issue({ serial: "77" }));
    const [a, b] = [await member(t, 1n, { crlFile }), await member(t, 2n, revoked)];
    introduce(a, b);
    assert.match(String((await refusal(a))["error"]), /revoked/);
    assert.equal(a.receiver.messages.length, 0);
  });

  test("pick up certificates replaced on disk, without a restart", async (t) => {
    const expired = await ca.issue({ expired: true });
    const replaced = writePair(dir.path, "replaced", expired);
    const [a, b] = [await member(t, 1n), await member(t, 2n, replaced)];
    introduce(a, b);
    await problem(a, /expired/);
    assert.equal(a.side.transport.activeSince(2n), undefined);
    writePair(dir.path, "replaced", await ca.issue());
    await waitFor("they are connected", () => a.side.transport.activeSince(2n) !== undefined);
    beat(b, a);
    await waitFor("a message has come", () => a.receiver.messages.length === 1);
    assert.ok(b.logger.has("reloaded certificate files"));
  });

  test("create certificates with --peer-auto-tls and trust each other's", async (t) => {
    const auto = { certFile: "", keyFile: "", trustedCaFile: "", clientCertAuth: false, autoTls: true };
    const [a, b] = [await member(t, 1n, auto), await member(t, 2n, auto)];
    introduce(a, b);
    await connected(a, b);
    assert.match(
      String(a.logger.lines.find((line) => line.message === "created cert file")?.fields["path"]),
      /fixtures\/peer\/cert\.pem$/,
    );
  });

  test("do not start without a certificate, and say so when plain listeners ignore theirs", async (t) => {
    await assert.rejects(
      member(t, 1n, { certFile: "", keyFile: "" }),
      /cannot listen on TLS for https:.*--peer-cert-file/,
    );
    const a = await member(t, 1n, {}, { kind: "tcp", host: "127.0.0.1", port: 0, url: "http://127.0.0.1:0" });
    assert.ok(a.logger.has("scheme is HTTP while key and cert files are present; ignoring key and cert files"));
    assert.ok(
      a.logger.has("scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert auth for this URL"),
    );
  });
});

test("members also communicate over unix sockets", async (t) => {
  const make = async (id: bigint): Promise<Member> => {
    const path = join(dir.path, `${id}.sock`);
    const one = await member(t, id, {}, { kind: "unix", path, url: `unix://${path}` });
    return { ...one, url: `unix://${path}` };
  };
  const [a, b] = [await make(1n), await make(2n)];
  introduce(a, b);
  await connected(a, b);
  beat(a, b);
  await waitFor("the message has come", () => b.receiver.messages.length === 1);
});

import { writeVarint } from "../../base/varint.ts";
import { ResponseHeader } from "../../proto/etcdserverpb.ts";
import type { EtcdServer } from "../../server/server.ts";

/**
 * The header of every response, encoded by hand: cluster and member id never change and the term rarely, so a header is
 * a copy of cached bytes and one number.
 */
export class HeaderWriter {
  readonly #server: EtcdServer;
  /** Encoded cluster and member id. */
  readonly #ids: Buffer;
  #term = -1;
  #termBytes: Buffer = Buffer.alloc(0);

  constructor(server: EtcdServer) {
    this.#server = server;
    this.#ids = ResponseHeader.encode(
      ResponseHeader.create({ clusterId: server.cluster.id, memberId: server.memberId }),
    );
  }

  /** Completes the header of a decoded response: a revision of 0 becomes the current one. */
  fill(header: ResponseHeader | undefined): ResponseHeader {
    const filled = header ?? ResponseHeader.create();
    filled.clusterId = this.#server.cluster.id;
    filled.memberId = this.#server.memberId;
    filled.raftTerm = this.#server.replication.term;
    if (filled.revision === 0) filled.revision = this.#server.store.currentRevision;
    return filled;
  }

  /** A new header. */
  create(revision = 0): ResponseHeader {
    return this.fill(ResponseHeader.create({ revision }));
  }

  /** As in the service Cluster: membership has no revision. */
  withoutRevision(): ResponseHeader {
    const header = this.create();
    header.revision = 0;
    return header;
  }

  /** Maximum length of `write`'s output. */
  static readonly BYTES_MAX = 64;

  /** Writes `header` as field 1 of a message; returns the offset after it. */
  write(buffer: Buffer, pos: number, revision: number): number {
    if (this.#term !== this.#server.replication.term) this.#cacheTerm();
    buffer[pos++] = 0x0a;
    const lengthAt = pos++;
    buffer.set(this.#ids, pos);
    pos += this.#ids.length;
    buffer[pos++] = 0x18;
    pos = writeVarint(buffer, pos, revision);
    buffer.set(this.#termBytes, pos);
    pos += this.#termBytes.length;
    buffer[lengthAt] = pos - lengthAt - 1;
    return pos;
  }

  #cacheTerm(): void {
    this.#term = this.#server.replication.term;
    this.#termBytes = ResponseHeader.encode(ResponseHeader.create({ raftTerm: this.#term }));
  }
}

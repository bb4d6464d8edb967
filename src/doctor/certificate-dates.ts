/** When a certificate's expiry is worth a word. */
import { X509Certificate } from "node:crypto";
import type { Finding } from "./finding.ts";

export interface Validity {
  readonly validFromMs: number;
  readonly validToMs: number;
}

const DAY_MS = 86_400_000;
const SOON_MS_MAX = 30 * DAY_MS;
/** Of the whole validity: who renews daily has certificates that never have 30 days left. */
const SOON_SHARE = 0.2;

/**
 * @param what the certificate as the reader knows it: "the certificate of http://…", "/etc/etcd/server.crt"
 * @param who whom an expired one stops
 */
export function examineDates(
  what: string,
  who: string,
  { validFromMs, validToMs }: Validity,
  nowMs: number,
): Finding[] {
  const next = ["renew it before that: members and clients read replaced files without a restart"];
  if (nowMs > validToMs) {
    const text = `${what} expired on ${day(validToMs)}: ${who}`;
    return [{ severity: "problem", code: "certificate-expired", subject: "certificates", text, next: RENEW }];
  }
  if (nowMs < validFromMs) {
    const text = `${what} is valid only from ${new Date(validFromMs).toISOString()}, and it is ${new Date(nowMs).toISOString()} here: ${who}`;
    const steps = ["compare the clocks (date -u) of this machine and of the one that issued it", ...RENEW];
    return [{ severity: "problem", code: "certificate-not-yet-valid", subject: "certificates", text, next: steps }];
  }
  const leftMs = validToMs - nowMs;
  if (leftMs > Math.min(SOON_MS_MAX, (validToMs - validFromMs) * SOON_SHARE)) return [];
  const left = leftMs >= 2 * DAY_MS ? `${Math.floor(leftMs / DAY_MS)} days` : `${Math.floor(leftMs / 3_600_000)} hours`;
  const text = `${what} expires in ${left}, on ${day(validToMs)}`;
  return [{ severity: "warning", code: "certificate-expires-soon", subject: "certificates", text, next }];
}

const RENEW = ["issue a new one from the same authority and replace the file: it is read again without a restart"];

const day = (ms: number): string => new Date(ms).toISOString().slice(0, 10);

const PEM = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/** Those of a file in PEM that can be parsed. */
export function certificatesIn(pem: Uint8Array): X509Certificate[] {
  const blocks = Buffer.from(pem).toString("latin1").match(PEM) ?? [];
  return blocks.flatMap((block) => {
    try {
      return [new X509Certificate(block)];
    } catch {
      return [];
    }
  });
}

export const validityOf = ({ validFrom, validTo }: X509Certificate): Validity => ({
  validFromMs: Date.parse(validFrom),
  validToMs: Date.parse(validTo),
});

import { quote } from "../../base/quote.ts";
import type { Config, TlsConfig } from "../config.ts";
import { ConfigError } from "../errors.ts";
import { CIPHER_SUITES, isAvailable } from "../values/cipher-suites.ts";
import { isTls } from "../values/url.ts";

/**
 * etcd's checks of addresses and TLS when it opens its listeners. Throws `ConfigError` of kind `start` with etcd's
 * texts. Whether files exist and are valid is checked when they are read.
 */
export function checkListeners(config: Config): void {
  const unknown = config.cipherSuites.find((suite) => !CIPHER_SUITES.has(suite));
  if (unknown !== undefined) fail(`unexpected TLS cipher suite ${quote(unknown)}`);
  const missing = config.cipherSuites.find((suite) => !isAvailable(suite));
  if (missing !== undefined) {
    fail(`TLS cipher suite ${quote(missing)} is insecure and not built into OpenSSL: leave it out of --cipher-suites`);
  }
  if (config.socketReusePort && !canReusePort(process.versions.node)) {
    fail(`--socket-reuse-port needs Node 22.12, or 23.1 and later; this is ${process.version}`);
  }
  const clientHasTls = hasCertificate(config.clientTls);
  for (const url of [...config.listenClientUrls, ...config.listenClientHttpUrls]) {
    if (isTls(url) && !clientHasTls) {
      fail(`TLS key/cert (--cert-file, --key-file) must be provided for client url ${url.text} with HTTPS scheme`);
    }
  }
  if (!clientHasTls && config.listenMetricsUrls.some(isTls)) {
    fail("client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url");
  }
  const http = new Set(config.listenClientHttpUrls.map((url) => url.host + url.path));
  const twice = config.listenClientUrls.find((url) => http.has(url.host + url.path));
  if (twice !== undefined && !twice.text.endsWith(":0")) {
    fail(`cannot bind both --listen-client-urls and --listen-client-http-urls on the same url ${twice.text}`);
  }
}

/** Whether this Node version can share a port: whether `net` has `reusePort`. */
export function canReusePort(version: string): boolean {
  const [major, minor] = version.split(".").map(Number) as [number, number];
  return major > 23 || (major === 23 && minor >= 1) || (major === 22 && minor >= 12);
}

const hasCertificate = (tls: TlsConfig): boolean => tls.autoTls || tls.certFile !== "" || tls.keyFile !== "";

function fail(why: string): never {
  throw new ConfigError("start", why);
}

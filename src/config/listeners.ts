import { quote } from "../base/quote.ts";
import type { Config, TlsConfig } from "./config.ts";
import { ConfigError } from "./errors.ts";
import { isTls } from "./url.ts";

/**
 * The checks of addresses and TLS that etcd makes when it opens its listeners. Throws `ConfigError` of kind `start`
 * with etcd's texts. Whether the files exist and hold what they should is found out by who reads them.
 */
export function checkListeners(config: Config): void {
  const unknown = config.cipherSuites.find((suite) => !CIPHER_SUITES.has(suite));
  if (unknown !== undefined) fail(`unexpected TLS cipher suite ${quote(unknown)}`);
  const clientHasTls = hasCertificate(config.clientTls);
  for (const url of [...config.listenClientUrls, ...config.listenClientHttpUrls]) {
    if (isTls(url) && !clientHasTls) {
      fail(`TLS key/cert (--cert-file, --key-file) must be provided for client url ${url.text} with HTTPS scheme`);
    }
  }
  const http = new Set(config.listenClientHttpUrls.map((url) => url.host + url.path));
  const twice = config.listenClientUrls.find((url) => http.has(url.host + url.path));
  if (twice !== undefined && !twice.text.endsWith(":0")) {
    fail(`cannot bind both --listen-client-urls and --listen-client-http-urls on the same url ${twice.text}`);
  }
}

const hasCertificate = (tls: TlsConfig): boolean => tls.autoTls || tls.certFile !== "" || tls.keyFile !== "";

function fail(why: string): never {
  throw new ConfigError("start", why);
}

/** The names that Go knows, safe and unsafe ones, and two older spellings. */
const CIPHER_SUITES: ReadonlySet<string> = new Set([
  "TLS_AES_128_GCM_SHA256",
  "TLS_AES_256_GCM_SHA384",
  "TLS_CHACHA20_POLY1305_SHA256",
  "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
  "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
  "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
  "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
  "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
  "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
  "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
  "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
  "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
  "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
  "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
  "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
  "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
  "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
  "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
  "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
  "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
  "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
  "TLS_RSA_WITH_AES_128_CBC_SHA",
  "TLS_RSA_WITH_AES_128_CBC_SHA256",
  "TLS_RSA_WITH_AES_128_GCM_SHA256",
  "TLS_RSA_WITH_AES_256_CBC_SHA",
  "TLS_RSA_WITH_AES_256_GCM_SHA384",
  "TLS_RSA_WITH_RC4_128_SHA",
]);

/** The library that writes certificates, loaded when it is needed: most commands only read some. */
import { webcrypto } from "node:crypto";

export async function x509Library() {
  await import("reflect-metadata");
  const x509 = await import("@peculiar/x509");
  x509.cryptoProvider.set(webcrypto);
  return x509;
}

export type X509 = Awaited<ReturnType<typeof x509Library>>;

/** Whether a member could listen on its addresses now: binds each for a moment. */
import { createServer } from "node:net";
import type { Config } from "../config/config.ts";
import { isUnixSocket, type Url } from "../config/values/url.ts";
import type { Finding } from "./finding.ts";

export async function examinePorts(config: Config): Promise<Finding[]> {
  const { listenClientUrls, listenPeerUrls, listenClientHttpUrls, listenMetricsUrls } = config;
  const all = [...listenClientUrls, ...listenPeerUrls, ...listenClientHttpUrls, ...listenMetricsUrls];
  const urls = new Map(all.filter((url) => !isUnixSocket(url) && url.port !== "0").map((url) => [url.host, url]));
  const found: Finding[] = [];
  for (const url of urls.values()) {
    const code = await bind(url);
    if (code !== undefined) found.push(finding(url, code));
  }
  return found;
}

/** The code of the error with which the system refuses the address. */
function bind(url: Url): Promise<string | undefined> {
  const host = url.hostname === "localhost" ? "127.0.0.1" : url.hostname;
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", ({ code }: NodeJS.ErrnoException) => resolve(code ?? "unknown"));
    server.listen({ host, port: Number(url.port), exclusive: true }, () => server.close(() => resolve(undefined)));
  });
}

function finding(url: Url, code: string): Finding {
  const subject = "ports";
  switch (code) {
    case "EADDRINUSE":
      return {
        severity: "problem",
        code: "port-taken",
        subject,
        text: `another process listens on ${url.host} (${url.text})`,
        next: [`ss -ltnp 'sport = :${url.port}' tells which; stop it, or choose another port`],
      };
    case "EADDRNOTAVAIL":
      return {
        severity: "problem",
        code: "address-missing",
        subject,
        text: `${url.hostname} (${url.text}) is not an address of this machine`,
        next: ["ip -brief address lists them; listen on one of these, and advertise the one that others reach"],
      };
    default:
      return {
        severity: "problem",
        code: "port-refused",
        subject,
        text: `${url.host} (${url.text}) cannot be listened on: ${code}`,
        next: [
          code === "EACCES" ? "choose a port above 1023, or give the process CAP_NET_BIND_SERVICE" : "correct the URL",
        ],
      };
  }
}

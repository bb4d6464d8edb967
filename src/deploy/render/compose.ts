/**
 * The same cluster for docker compose: one service for each member, on a network of their own, with the certificates
 * mounted. Clients on this machine reach member i at its own port on 127.0.0.1.
 */
import { stringify } from "yaml";
import { asFlags } from "../common/settings.ts";
import type { Inventory } from "../inventory/inventory.ts";
import { memberSettings } from "./settings.ts";

const DATA = "/var/lib/etcd";
const CA = "/etc/etcd/ca.crt";
const PKI = "/etc/etcd/pki";

/** Paths are relative to the compose file, below which `pkiDir` has the certificates as `kvorum cert` lays them out. */
export function composeText(inventory: Inventory, image: string, pkiDir: string): string {
  const { members, clientPort, certificates } = inventory;
  const pair = (path: string) => ({ cert: `${PKI}/${path}.crt`, key: `${PKI}/${path}.key` });
  const services = members.map((member, i) => {
    const of = certificates.isShared ? "etcd" : member.name;
    const settings = memberSettings(inventory, member, {
      listen: ["0.0.0.0"],
      hostOf: ({ name }) => name,
      certificates: certificates.isShared
        ? { ca: CA, server: pair("etcd"), peer: pair("etcd") }
        : { ca: CA, server: pair("server"), peer: pair("peer") },
      dataDir: DATA,
      walDir: undefined,
      isFounding: true,
    });
    const mounted = certificates.isShared
      ? ["etcd.crt", "etcd.key"].map((name) => `${pkiDir}/members/${name}:${PKI}/${name}:ro`)
      : [`${pkiDir}/members/${of}:${PKI}:ro`];
    return [
      member.name,
      {
        image,
        hostname: member.name,
        restart: "unless-stopped",
        command: ["etcd", ...asFlags(settings)],
        ports: [`127.0.0.1:${clientPort + 10_000 * i}:${clientPort}`],
        volumes: [`${member.name}:${DATA}`, ...mounted, `${pkiDir}/ca.crt:${CA}:ro`],
      },
    ];
  });
  return stringify(
    {
      name: inventory.cluster.toLowerCase().replaceAll(".", "-"),
      services: Object.fromEntries(services),
      volumes: Object.fromEntries(members.map(({ name }) => [name, {}])),
    },
    { lineWidth: 0 },
  );
}

import { BlockList, isIP } from "node:net";
import type { Logger } from "../../base/log.ts";
import type { Config } from "../config.ts";
import { urlTexts } from "../values/url.ts";

/** Addresses that do not identify a machine: loopback and "any". */
const NOT_LOCAL = new BlockList();
NOT_LOCAL.addSubnet("127.0.0.0", 8, "ipv4");
NOT_LOCAL.addAddress("0.0.0.0", "ipv4");
NOT_LOCAL.addAddress("::1", "ipv6");
NOT_LOCAL.addAddress("::", "ipv6");

/**
 * The local address for connections to other members, with the gate SetMemberLocalAddr: the first that this member
 * advertises, so that on a machine with several it is the one named in its certificate. Undefined leaves the choice to
 * the system.
 */
export function findLocalAddress(config: Config, log: Logger): string | undefined {
  if (!config.features.enabled("SetMemberLocalAddr")) return undefined;
  const urls = { "advertise-peer-urls": urlTexts(config.advertisePeerUrls) };
  log.info("searching for a suitable member local address in AdvertisePeerURLs", urls);
  const found = config.advertisePeerUrls.find(({ hostname }) => isSuitable(hostname))?.hostname;
  if (found !== undefined) log.info("setting member local address", { LocalAddr: found });
  else log.warn("unable to set a member local address due to lack of suitable local addresses", urls);
  return found;
}

function isSuitable(host: string): boolean {
  const family = isIP(host);
  return family !== 0 && !NOT_LOCAL.check(host, family === 6 ? "ipv6" : "ipv4");
}

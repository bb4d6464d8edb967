import { onlyChecked, setting } from "./definition.ts";
import { bool, hosts, list, origins, text, uint } from "./kinds.ts";

const NO_CONNECTION = onlyChecked("the JSON gateway calls the server without a connection to it");

/** Settings for certificates and access. */
export const securitySettings = {
  "cert-file": setting(text, {
    field: "clientTls.certFile",
    file: "client-transport-security.cert-file",
    default: "",
    help: "Certificate of the server for its clients.",
  }),
  "key-file": setting(text, {
    field: "clientTls.keyFile",
    file: "client-transport-security.key-file",
    default: "",
    help: "Private key of that certificate.",
  }),
  "client-cert-auth": setting(bool, {
    field: "clientTls.clientCertAuth",
    file: "client-transport-security.client-cert-auth",
    default: "false",
    help: "Clients have to show a certificate signed by --trusted-ca-file.",
  }),
  "client-cert-file": setting(text, {
    field: "clientTls.clientCertFile",
    file: "client-transport-security.client-cert-file",
    default: "",
    help: "Certificate that the server itself shows as a client; without it --cert-file.",
    status: NO_CONNECTION,
  }),
  "client-key-file": setting(text, {
    field: "clientTls.clientKeyFile",
    file: "client-transport-security.client-key-file",
    default: "",
    help: "Private key of that certificate.",
    status: NO_CONNECTION,
  }),
  "client-crl-file": setting(text, {
    field: "clientTls.crlFile",
    file: false,
    default: "",
    help: "Revoked client certificates.",
  }),
  "client-cert-allowed-hostname": setting(list, {
    field: "clientTls.allowedHostnames",
    file: "client-transport-security.allowed-hostname",
    default: "",
    help: "Names one of which a client certificate has to carry (SAN), separated by commas.",
  }),
  "client-transport-security.allowed-cn": setting(list, {
    field: "clientTls.allowedCns",
    flag: false,
    default: "",
    help: "Common names one of which a client certificate has to carry.",
  }),
  "client-transport-security.skip-client-san-verification": setting(bool, {
    field: "clientTls.skipClientSanVerify",
    flag: false,
    default: "false",
    help: "Do not check the addresses and hosts that a client certificate names.",
  }),
  "trusted-ca-file": setting(text, {
    field: "clientTls.trustedCaFile",
    file: "client-transport-security.trusted-ca-file",
    default: "",
    help: "Authorities that sign the certificates of clients.",
  }),
  "auto-tls": setting(bool, {
    field: "clientTls.autoTls",
    file: "client-transport-security.auto-tls",
    default: "false",
    help: "TLS for clients with a certificate made at the start.",
  }),
  "peer-cert-file": setting(text, {
    field: "peerTls.certFile",
    file: "peer-transport-security.cert-file",
    default: "",
    help: "Certificate of the server for other members.",
  }),
  "peer-key-file": setting(text, {
    field: "peerTls.keyFile",
    file: "peer-transport-security.key-file",
    default: "",
    help: "Private key of that certificate.",
  }),
  "peer-client-cert-auth": setting(bool, {
    field: "peerTls.clientCertAuth",
    file: "peer-transport-security.client-cert-auth",
    default: "false",
    help: "Other members have to show a certificate signed by --peer-trusted-ca-file.",
  }),
  "peer-client-cert-file": setting(text, {
    field: "peerTls.clientCertFile",
    file: "peer-transport-security.client-cert-file",
    default: "",
    help: "Certificate shown to other members as a client; without it --peer-cert-file.",
  }),
  "peer-client-key-file": setting(text, {
    field: "peerTls.clientKeyFile",
    file: "peer-transport-security.client-key-file",
    default: "",
    help: "Private key of that certificate.",
  }),
  "peer-trusted-ca-file": setting(text, {
    field: "peerTls.trustedCaFile",
    file: "peer-transport-security.trusted-ca-file",
    default: "",
    help: "Authorities that sign the certificates of members.",
  }),
  "peer-cert-allowed-cn": setting(list, {
    field: "peerTls.allowedCns",
    file: "peer-transport-security.allowed-cn",
    default: "",
    help: "Common names one of which a member's certificate has to carry, separated by commas.",
  }),
  "peer-cert-allowed-hostname": setting(list, {
    field: "peerTls.allowedHostnames",
    file: "peer-transport-security.allowed-hostname",
    default: "",
    help: "Names one of which a member's certificate has to carry (SAN), separated by commas.",
  }),
  "peer-auto-tls": setting(bool, {
    field: "peerTls.autoTls",
    file: "peer-transport-security.auto-tls",
    default: "false",
    help: "TLS between members with certificates made at the start.",
  }),
  "self-signed-cert-validity": setting(uint, {
    field: "selfSignedCertValidityYears",
    default: "1",
    zeroMeans: 1,
    help: "Years that certificates made at the start are valid.",
  }),
  "peer-crl-file": setting(text, {
    field: "peerTls.crlFile",
    file: false,
    default: "",
    help: "Revoked certificates of members.",
  }),
  // Empty means all safe suites.
  "cipher-suites": setting(list, {
    field: "cipherSuites",
    default: "",
    help: "TLS 1.2 cipher suites to accept, by Go's names, separated by commas.",
  }),
  cors: setting(origins, {
    field: "cors",
    default: "*",
    help: "Origins that browsers may call from, separated by commas; empty or * means all.",
  }),
  "host-whitelist": setting(hosts, {
    field: "hostWhitelist",
    default: "*",
    help: "Host names that plain HTTP requests may ask for; empty or * means all.",
  }),
  "tls-min-version": setting(text, {
    field: "tlsMinVersion",
    default: "TLS1.2",
    help: "Oldest TLS version to accept, TLS1.2 or TLS1.3.",
  }),
  "tls-max-version": setting(text, {
    field: "tlsMaxVersion",
    default: "",
    help: "Newest TLS version to accept, TLS1.2 or TLS1.3; empty means the newest there is.",
  }),
};

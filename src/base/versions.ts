/** The etcd version of this server, as reported to clients and peers. */
export const ETCD_VERSION = "3.7.1";
/** The API version that clients send with each call. */
export const API_VERSION = "3.7";

/** Version of etcd that this server is: what it tells clients and peers. */
export const ETCD_VERSION = "3.7.1";
/** The version of the API that clients name with each call. */
export const API_VERSION = "3.7";

export interface Trouble {
  /** One line. */
  readonly text: string;
  /** Retrying does not help: the configuration must change, here or on the server. */
  readonly lasting: boolean;
  /** The subject, when there is advice for it. */
  readonly kind?: TroubleKind | undefined;
}

export type TroubleKind =
  | "authority"
  | "client-certificate"
  | "client-authority"
  | "closed-on-certificate"
  | "closed-without-certificate"
  | "speaks-tls"
  | "speaks-plain";

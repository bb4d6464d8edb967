export interface Trouble {
  /** One line. */
  readonly text: string;
  /** Waiting does not help: something has to be configured otherwise, here or there. */
  readonly lasting: boolean;
  /** What it is about, where there is advice to give. */
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

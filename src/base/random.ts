import { randomBytes, randomInt } from "node:crypto";

/** The source of randomness. Production uses `systemRandom`; the simulator passes a seeded generator. */
export interface Random {
  /** A whole number in [0, bound); bound at most 2^48. */
  below(bound: number): number;
  /** 64 random bits. */
  uint64(): bigint;
}

export const systemRandom: Random = {
  below: (bound) => randomInt(bound),
  uint64: () => randomBytes(8).readBigUInt64BE(),
};

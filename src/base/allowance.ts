/**
 * A shared amount of something, granted in the order of the claims. A claim larger than the whole amount is granted
 * when no other is held.
 */
export class Allowance {
  readonly #total: number;
  #taken = 0;
  readonly #waiting: Claim[] = [];

  constructor(total: number) {
    this.#total = total;
  }

  get taken(): number {
    return this.#taken;
  }

  /** Asks for `amount`; `onGranted` is called once it is granted, if the claim has to wait. Always release it. */
  claim(amount: number, onGranted: () => void): Claim {
    const claim = new Claim(this, amount, onGranted);
    if (this.#waiting.length === 0 && this.#fits(amount)) this.#grant(claim);
    else this.#waiting.push(claim);
    return claim;
  }

  /** For a Claim. */
  released(claim: Claim): void {
    if (claim.granted) this.#taken -= claim.amount;
    else {
      const at = this.#waiting.indexOf(claim);
      if (at >= 0) this.#waiting.splice(at, 1);
    }
    while (this.#waiting.length > 0 && this.#fits(this.#waiting[0]!.amount)) {
      const next = this.#waiting.shift()!;
      this.#grant(next);
      next.onGranted();
    }
  }

  #fits(amount: number): boolean {
    return this.#taken === 0 || this.#taken + amount <= this.#total;
  }

  #grant(claim: Claim): void {
    this.#taken += claim.amount;
    claim.granted = true;
  }
}

export class Claim {
  readonly amount: number;
  readonly onGranted: () => void;
  granted = false;
  readonly #allowance: Allowance;
  #released = false;

  constructor(allowance: Allowance, amount: number, onGranted: () => void) {
    this.#allowance = allowance;
    this.amount = amount;
    this.onGranted = onGranted;
  }

  /** Gives it back, or stops waiting for it. Idempotent. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#allowance.released(this);
  }
}

/** Checks byte by byte whether a text is UTF-8. Pure. */
export class Utf8Check {
  /** Bytes that the character still needs; 0 between characters. */
  needs = 0;
  /** The bounds of the next byte. */
  #low = 0x80;
  #high = 0xbf;

  reset(): void {
    this.needs = 0;
    this.#low = 0x80;
    this.#high = 0xbf;
  }

  /** False when the byte is not valid here; the check then restarts after it. */
  take(byte: number): boolean {
    if (this.needs > 0) {
      if (byte < this.#low || byte > this.#high) {
        this.reset();
        return false;
      }
      this.needs--;
      this.#low = 0x80;
      this.#high = 0xbf;
      return true;
    }
    if (byte < 0x80) return true;
    if (byte >= 0xc2 && byte < 0xe0) this.needs = 1;
    else if (byte >= 0xe0 && byte < 0xf0) this.needs = 2;
    else if (byte >= 0xf0 && byte < 0xf5) this.needs = 3;
    else return false;
    // No overlong forms, no surrogates, nothing above the last code point.
    if (byte === 0xe0) this.#low = 0xa0;
    else if (byte === 0xf0) this.#low = 0x90;
    if (byte === 0xed) this.#high = 0x9f;
    else if (byte === 0xf4) this.#high = 0x8f;
    return true;
  }
}

import type { Url } from "../config/values/url.ts";

/** Which of a peer's URLs is used: one until it fails, then the next. */
export class UrlPicker {
  #urls: readonly Url[];
  #picked = 0;

  /** At least one URL. */
  constructor(urls: readonly Url[]) {
    this.#urls = urls;
  }

  update(urls: readonly Url[]): void {
    this.#urls = urls;
    this.#picked = 0;
  }

  pick(): Url {
    return this.#urls[this.#picked]!;
  }

  /** Says that a URL does not work; only the one picked now counts, for several requests may have used it. */
  unreachable(url: Url): void {
    if (this.#urls[this.#picked] === url) this.#picked = (this.#picked + 1) % this.#urls.length;
  }
}

import type { Url } from "../config/values/url.ts";

/** Picks one of a peer's URLs: the same one until it fails, then the next. */
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

  /** Reports a failed URL. Ignored unless it is the current one, because several requests may have used it. */
  unreachable(url: Url): void {
    if (this.#urls[this.#picked] === url) this.#picked = (this.#picked + 1) % this.#urls.length;
  }
}

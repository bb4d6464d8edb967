/** The subscribers to one kind of event, called in order of subscription. Notifying allocates nothing. */
export class Subscribers<Event extends readonly unknown[] = []> {
  #listeners: readonly ((...event: Event) => void)[] = [];

  /** Calls the listener from now on, until the returned function is called. */
  add(listener: (...event: Event) => void): () => void {
    // A new list each time, so that a running notification is not disturbed when a listener is added or removed.
    this.#listeners = [...this.#listeners, listener];
    return () => {
      this.#listeners = this.#listeners.filter((each) => each !== listener);
    };
  }

  tell(...event: Event): void {
    const listeners = this.#listeners;
    for (let i = 0; i < listeners.length; i++) listeners[i]!(...event);
  }
}

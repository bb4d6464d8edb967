/**
 * Those who want to be told of one kind of event, in the order in which they asked. Telling costs nothing but the calls: it
 * makes no object.
 */
export class Subscribers<Event extends readonly unknown[] = []> {
  #listeners: readonly ((...event: Event) => void)[] = [];

  /** Calls the listener from now on, until the function that this returns is called. */
  add(listener: (...event: Event) => void): () => void {
    // A new list each time, so that telling goes on undisturbed when a listener comes or goes meanwhile.
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

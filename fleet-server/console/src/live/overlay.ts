// The newest view of each thing that the stream has told of, laid over what was read before.
// A row listens to its own key, so that one message renders one row and not the list.

/** When a change is shown; many messages in one frame are one rendering. */
export type Schedule = (flush: () => void) => void;

interface Told<V> {
  value: V;
  at: number;
}

/** Stands for every key, for those who draw all of them at once. */
export const ANY_KEY = "*";

export class Overlay<V> {
  readonly #told = new Map<string, Told<V>>();
  readonly #listeners = new Map<string, Set<() => void>>();
  readonly #changed = new Set<string>();
  readonly #schedule: Schedule;
  #isScheduled = false;

  constructor(schedule: Schedule) {
    this.#schedule = schedule;
  }

  /** Takes a view that came at `at`. */
  put(key: string, value: V, at: number): void {
    this.#told.set(key, { value, at });
    if (!this.#listeners.has(key) && !this.#listeners.has(ANY_KEY)) return;
    this.#changed.add(key);
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#schedule(() => this.#flush());
  }

  /** The told view, if it came later than what was read at `readAt`; else what was read. */
  newest(key: string, read: V, readAt: number): V;
  newest(key: string, read: V | undefined, readAt: number): V | undefined;
  newest(key: string, read: V | undefined, readAt: number): V | undefined {
    const told = this.#told.get(key);
    return told && told.at >= readAt ? told.value : read;
  }

  /** Calls `listener` when the key has changed, until the returned function is called. */
  subscribe(key: string, listener: () => void): () => void {
    const listeners = this.#listeners.get(key) ?? new Set();
    listeners.add(listener);
    this.#listeners.set(key, listeners);
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0) this.#listeners.delete(key);
    };
  }

  /** Forgets everything: after a gap in the stream, what was told may be old. */
  clear(): void {
    this.#told.clear();
  }

  get size(): number {
    return this.#told.size;
  }

  #flush(): void {
    const keys = [...this.#changed, ANY_KEY];
    this.#changed.clear();
    this.#isScheduled = false;
    for (const key of keys) for (const listener of this.#listeners.get(key) ?? []) listener();
  }
}

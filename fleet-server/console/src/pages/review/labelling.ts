// What a key means while somebody labels. Pure: it is given where they are, and says what comes of it.

export interface Place {
  /** The classes that the model names, in their order. */
  classes: string[];
  /** How many samples there are. */
  count: number;
  /** Which one is looked at. */
  at: number;
  /** Samples that were labelled, the newest last. */
  done: string[];
}

export type Deed = { kind: "label"; label: string } | { kind: "go"; to: number } | { kind: "undo"; sample: string };

/** Digits name classes by their number as the model counts them; beyond ten classes the label is typed. */
export function deedOf(key: string, { classes, count, at, done }: Place): Deed | undefined {
  if (key === "ArrowRight" || key === "ArrowDown") return at + 1 < count ? { kind: "go", to: at + 1 } : undefined;
  if (key === "ArrowLeft" || key === "ArrowUp") return at > 0 ? { kind: "go", to: at - 1 } : undefined;
  if (key === "u" || key === "Backspace") {
    const sample = done[done.length - 1];
    return sample === undefined ? undefined : { kind: "undo", sample };
  }
  if (!/^[0-9]$/.test(key) || classes.length > 10) return undefined;
  const label = classes[Number(key)];
  return label === undefined ? undefined : { kind: "label", label };
}

/** Where to look after a sample was labelled: at the next that is not, or where one is. */
export function nextOf(ids: string[], at: number, done: string[]): number {
  const open = (place: number) => ids[place] !== undefined && !done.includes(ids[place]);
  const after = ids.map((_, place) => place).find((place) => place > at && open(place));
  return after ?? ids.map((_, place) => place).find(open) ?? at;
}

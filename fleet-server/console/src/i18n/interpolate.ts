// Messages with places to fill: `{name}`, and `{count:device|devices}` where the word depends on a number.

type PlaceOf<Inner extends string> = Inner extends `${infer Name}:${string}` ? Name : Inner;

/** Names of the places of a message, read from its text at compile time. */
export type Places<Text extends string> = Text extends `${string}{${infer Inner}}${infer Rest}`
  ? PlaceOf<Inner> | Places<Rest>
  : never;

export type Values = Record<string, string | number>;

const PLACE = /\{(\w+)(?::([^|}]*)\|([^}]*))?\}/g;

/** Fills the places of `text`. Numbers are written by `format`; a place without a value stays visible. */
export function interpolate(text: string, values: Values, format: (value: number) => string = String): string {
  return text.replace(PLACE, (place, name: string, one?: string, other?: string) => {
    const value = values[name];
    if (value === undefined) return place;
    if (one !== undefined && other !== undefined) return value === 1 ? one : other;
    return typeof value === "number" ? format(value) : value;
  });
}

/** Names of the places of `text`, sorted, without repeats. */
export function placesOf(text: string): string[] {
  return [...new Set([...text.matchAll(PLACE)].map((found) => found[1] ?? ""))].sort();
}

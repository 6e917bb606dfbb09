// Numbers, sizes, shares, times: as text, in the reader's language. Pure: the time is given.

export type Language = "en" | "ja";

const MINUTE_S = 60;
const HOUR_S = 60 * MINUTE_S;
const DAY_S = 24 * HOUR_S;

const numbers = cached((language) => new Intl.NumberFormat(language, { maximumFractionDigits: 1 }));
const relative = cached((language) => new Intl.RelativeTimeFormat(language, { style: "narrow", numeric: "always" }));
const absolute = cached(
  (language) => new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" }),
);

export function formatNumber(language: Language, value: number): string {
  return numbers(language).format(value);
}

/** `0.034` becomes `3.4 %`; whole per cents lose their fraction, and a little is not told as nothing. */
export function formatShare(language: Language, share: number): string {
  if (share > 0 && share < 0.0005) return `< ${formatNumber(language, 0.1)} %`;
  return `${formatNumber(language, Math.round(share * 1000) / 10)} %`;
}

export function formatDateTime(language: Language, at: number): string {
  return absolute(language).format(at);
}

/** `12s ago`, `in 3 days`: seconds below a minute, then the largest unit that fits. */
export function formatAge(language: Language, at: number, now: number): string {
  const seconds = Math.round((at - now) / 1000);
  const [value, unit] = unitOf(seconds);
  return relative(language).format(value, unit);
}

/** Clocks of two machines differ a little: what has just happened must not seem to be yet to come. */
const CLOCKS_DIFFER_S = 2;

function unitOf(seconds: number): [number, Intl.RelativeTimeFormatUnit] {
  const size = Math.abs(seconds);
  // Minus zero is `0s ago`, zero would be `in 0s`.
  if (seconds >= 0 && seconds <= CLOCKS_DIFFER_S) return [-0, "second"];
  if (size < MINUTE_S) return [seconds, "second"];
  if (size < HOUR_S) return [Math.trunc(seconds / MINUTE_S), "minute"];
  if (size < 2 * DAY_S) return [Math.trunc(seconds / HOUR_S), "hour"];
  return [Math.trunc(seconds / DAY_S), "day"];
}

/** A length of time of a machine: `90` becomes `1 min 30 s`; two units are enough. */
export function formatDuration(language: Language, seconds: number): string {
  const units: [number, "day" | "hour" | "minute" | "second"][] = [
    [DAY_S, "day"],
    [HOUR_S, "hour"],
    [MINUTE_S, "minute"],
    [1, "second"],
  ];
  const first = units.findIndex(([size]) => seconds >= size);
  if (first < 0) return unitText(language, 0, "second");
  let rest = Math.round(seconds);
  const parts = units.slice(first, first + 2).map(([size, unit]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return count > 0 ? unitText(language, count, unit) : "";
  });
  return parts.filter((part) => part !== "").join(" ");
}

function unitText(language: Language, value: number, unit: string): string {
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "short" }).format(value);
}

/** Powers of 1024, as disks and memory are counted. */
export function formatBytes(language: Language, bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${formatNumber(language, bytes / 1024 ** power)} ${units[power] ?? "B"}`;
}

/** The first 12 hex digits: enough to tell two images apart by eye. */
export function shortDigest(digest: string): string {
  return digest.replace(/^sha256:/, "").slice(0, 12);
}

function cached<T>(make: (language: Language) => T): (language: Language) => T {
  const made = new Map<Language, T>();
  return (language) => {
    const found = made.get(language) ?? make(language);
    made.set(language, found);
    return found;
  };
}

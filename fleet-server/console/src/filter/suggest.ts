// What can stand next in a filter. Pure; the server alone decides whether a filter holds.

export interface Known {
  /** Values seen per label. */
  labels: Record<string, string[]>;
  /** Versions per model. */
  models: Record<string, string[]>;
}

export interface Suggestion {
  /** The whole filter, if it is taken. */
  filter: string;
  /** The term that it would put. */
  term: string;
  /** Where the caret stands afterwards. */
  caret: number;
}

/** A list that is longer is not read. */
const SUGGESTIONS_MAX = 8;
const FIXED: Record<string, string[]> = {
  state: ["online", "unhealthy", "offline", "revoked"],
  seen: ["<5m", "<1h", ">1h", ">1d"],
  sim: ["true", "false"],
  id: [],
};

/** Terms that begin like the one in which the caret stands. */
export function suggest(filter: string, caret: number, known: Known): Suggestion[] {
  const { start, end } = termAround(filter, caret);
  const typed = filter.slice(start, caret);
  const sign = typed.startsWith("-") ? "-" : "";
  const wanted = typed.slice(sign.length).toLowerCase();
  return candidates(wanted, known)
    .filter((term) => term.toLowerCase().startsWith(wanted) && term.toLowerCase() !== wanted)
    .slice(0, SUGGESTIONS_MAX)
    .map((term) => put(filter, start, end, sign + term));
}

function candidates(wanted: string, known: Known): string[] {
  const colon = wanted.indexOf(":");
  if (colon < 0) {
    const keys = [...Object.keys(known.labels).sort(), "state", "model", "id", "seen", "sim"];
    return [...new Set(keys)].map((key) => `${key}:`);
  }
  const key = wanted.slice(0, colon);
  if (key === "model") return models(wanted.slice(colon + 1), known).map((value) => `model:${value}`);
  const values = FIXED[key] ?? [...(known.labels[key] ?? [])].sort();
  return values.map((value) => `${key}:${value.includes(" ") ? `"${value}"` : value}`);
}

function models(value: string, known: Known): string[] {
  const names = Object.keys(known.models).sort();
  const [name] = value.split("@");
  const versions = value.includes("@") ? (known.models[name ?? ""] ?? []) : [];
  return [...names, ...versions.map((version) => `${name}@${version}`)];
}

/** A term that ends in a colon wants a value; any other is complete, and a space follows. */
function put(filter: string, start: number, end: number, term: string): Suggestion {
  const isOpen = term.endsWith(":");
  const head = filter.slice(0, start) + term + (isOpen ? "" : " ");
  return { filter: head + filter.slice(end).trimStart(), term, caret: head.length };
}

function termAround(filter: string, caret: number): { start: number; end: number } {
  const before = filter.slice(0, caret);
  const start = before.lastIndexOf(" ") + 1;
  const after = filter.slice(caret).search(/\s/);
  return { start, end: after < 0 ? filter.length : caret + after };
}

/** Puts a term into a filter, once. */
export function withTerm(filter: string, term: string): string {
  const terms = filter.split(/\s+/).filter((word) => word !== "");
  return terms.includes(term) ? terms.join(" ") : [...terms, term].join(" ");
}

/** Takes a term out of a filter. */
export function withoutTerm(filter: string, term: string): string {
  return filter.split(/\s+/).filter((word) => word !== "" && word !== term).join(" ");
}

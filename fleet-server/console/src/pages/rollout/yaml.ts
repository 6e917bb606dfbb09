// A body as YAML, for people and for `fleetctl rollout create -f`. Pure.

type Value = string | number | boolean | null | undefined | Value[] | { [key: string]: Value };

/** Nothing is written of what is not set: the server's own defaults stand. */
export function yamlOf(value: object): string {
  return `${fields(value as Record<string, Value>, "").join("\n")}\n`;
}

function fields(value: Record<string, Value>, indent: string): string[] {
  return Object.entries(value).flatMap(([key, field]) => (field === undefined ? [] : entry(`${indent}${key}:`, field, indent)));
}

function entry(head: string, value: Value, indent: string): string[] {
  if (Array.isArray(value)) return value.length === 0 ? [`${head} []`] : [head, ...value.flatMap((item) => listed(item, `${indent}  `))];
  if (isObject(value)) return [head, ...fields(value, `${indent}  `)];
  return [`${head} ${scalar(value)}`];
}

function listed(item: Value, indent: string): string[] {
  if (!isObject(item)) return [`${indent}- ${scalar(item)}`];
  const [first = "{}", ...rest] = fields(item, `${indent}  `);
  return [`${indent}- ${first.trimStart()}`, ...rest];
}

/** Strings in quotes, as JSON has them, which YAML reads the same: `no`, `1.0` and `a: b` stay words. */
function scalar(value: Value): string {
  return JSON.stringify(value ?? null);
}

function isObject(value: Value): value is Record<string, Value> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

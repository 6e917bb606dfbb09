// Adds up what a browser loads before the first page can be shown, and fails if it is too much.

import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

/** A second on a 1.5 Mbit/s line of a factory. */
const INITIAL_GZIP_BYTES_MAX = 160 * 1024;
const dist = new URL("../dist/", import.meta.url);

/** Follows static imports only: what is behind `import()` is loaded when it is needed. */
function reach(file, seen) {
  if (seen.has(file)) return seen;
  seen.add(file);
  const code = readFileSync(new URL(`assets/${file}`, dist), "utf8");
  for (const [, next] of code.matchAll(/(?:from|import)\s*["']\.\/([\w.-]+\.js)["']/g)) reach(next, seen);
  return seen;
}

const entry = /src="\/assets\/([\w.-]+\.js)"/.exec(readFileSync(new URL("index.html", dist), "utf8"))?.[1];
if (!entry) throw new Error("dist/index.html names no script; run `npm run build` first");
const files = [...reach(entry, new Set())];
const bytes = files.map((file) => gzipSync(readFileSync(new URL(`assets/${file}`, dist)), { level: 9 }).length);
const total = bytes.reduce((sum, size) => sum + size, 0);
files.forEach((file, index) => console.log(`${String(bytes[index]).padStart(8)}  ${file}`));
console.log(`${String(total).padStart(8)}  initial JavaScript, gzip; at most ${INITIAL_GZIP_BYTES_MAX}`);
if (total > INITIAL_GZIP_BYTES_MAX) process.exit(1);

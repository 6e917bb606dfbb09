// What a verdict is about, in words. Pure.

import { en, type Key } from "../../i18n/en";
import type { Say } from "../../i18n/language";

/** Figures of pictures have names and units; what a publisher has named is shown as it is. */
export function subjectText(say: Say, subject: string): string {
  const key = keyOf(subject);
  return key ? (say as (key: Key) => string)(key) : subject;
}

function keyOf(subject: string): Key | undefined {
  const [kind, name] = parts(subject);
  const key = kind === "feature" ? `subject.${name}` : kind === "group" ? `subject.${name.replace("image.", "image.group.")}` : "";
  return Object.hasOwn(en, key) ? (key as Key) : undefined;
}

/** `feature:image.noise` is `feature` and `image.noise`. */
function parts(subject: string): [string, string] {
  const at = subject.indexOf(":");
  return [subject.slice(0, Math.max(at, 0)), subject.slice(at + 1)];
}

// Labels as they are typed: `site=tokyo line=2`. Pure.

/** A word without `=` has an empty value, which the server refuses with a reason. */
export function labelsOf(text: string): Record<string, string> {
  const words = text.split(/\s+/).filter((word) => word !== "");
  return Object.fromEntries(
    words.map((word) => {
      const at = word.indexOf("=");
      return at < 0 ? [word, ""] : [word.slice(0, at), word.slice(at + 1)];
    }),
  );
}

// Texts in a command line that somebody copies.

/** Single quotes, as POSIX shells read them: nothing inside is special but the quote itself. */
export function shellQuote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

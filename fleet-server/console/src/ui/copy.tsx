// A line to take away to a terminal.

import { Fragment, useState } from "react";
import { useLocale } from "../i18n/language";
import { Button } from "./basics";

/** Long enough to be seen, short enough not to be taken for the next copy. */
const COPIED_SHOWN_MS = 2_000;

/** Breaks a line between words, and not behind the hyphens of an option. */
function Words({ text }: { text: string }) {
  const words = text.split(" ");
  // Words have no other name than their place.
  return words.map((word, place) => <Fragment key={place}><span className="word">{word}</span>{place < words.length - 1 && " "}</Fragment>);
}

export function CopyLine({ text, label }: { text: string; label: string }) {
  const { say } = useLocale();
  const [isCopied, setIsCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setIsCopied(true);
    setTimeout(() => setIsCopied(false), COPIED_SHOWN_MS);
  };
  return (
    <div className="copy-line">
      <code tabIndex={0} role="textbox" aria-readonly="true" aria-label={label}><Words text={text} /></code>
      <Button icon={isCopied ? "check" : "copy"} onClick={() => void copy()}>
        <span aria-live="polite">{isCopied ? say("common.copied") : say("common.copy")}</span>
      </Button>
    </div>
  );
}

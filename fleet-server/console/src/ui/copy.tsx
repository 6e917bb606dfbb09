// A line to take away to a terminal.

import { useState } from "react";
import { useLocale } from "../i18n/language";
import { Button } from "./basics";

/** Long enough to be seen, short enough not to be taken for the next copy. */
const COPIED_SHOWN_MS = 2_000;

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
      <code tabIndex={0} role="textbox" aria-readonly="true" aria-label={label}>{text}</code>
      <Button icon={isCopied ? "check" : "copy"} onClick={() => void copy()}>
        <span aria-live="polite">{isCopied ? say("common.copied") : say("common.copy")}</span>
      </Button>
    </div>
  );
}

// Bars: shares of a whole, and a value against its limit. The numbers stand beside them as text.

import type { CSSProperties } from "react";

export interface Segment {
  key: string;
  label: string;
  value: number;
  className: string;
}

/** Parts of a whole, in order. */
export function StackedBar({ segments, label }: { segments: Segment[]; label: string }) {
  const total = segments.reduce((sum, segment) => sum + segment.value, 0);
  return (
    <div className="stacked-bar" role="img" aria-label={label}>
      {segments
        .filter((segment) => segment.value > 0)
        .map((segment) => (
          <span
            key={segment.key}
            className={segment.className}
            style={{ flexGrow: segment.value / Math.max(1, total) }}
            title={`${segment.label}: ${segment.value}`}
          />
        ))}
    </div>
  );
}

/** A value between 0 and twice its limit, with the limit as a line in the middle. */
export function LimitBar({ value, limit, isGood, label }: { value: number; limit: number; isGood: boolean; label: string }) {
  const share = limit > 0 ? Math.min(1, value / (2 * limit)) : Number(value > 0);
  const style = { "--share": `${share * 100}%` } as CSSProperties;
  return (
    <span className={`limit-bar ${isGood ? "is-good" : "is-bad"}`} role="img" aria-label={label}>
      <span style={style} />
    </span>
  );
}

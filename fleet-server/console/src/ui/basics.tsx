// The small parts that every page is made of.

import { type ButtonHTMLAttributes, type ReactNode, useEffect, useId, useRef } from "react";
import { shortDigest } from "../i18n/format";
import { useLocale } from "../i18n/language";
import { useTicking } from "../live/hooks";
import { Icon, type IconName } from "./icon";

interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  look?: "plain" | "main" | "danger" | "quiet";
  icon?: IconName;
}

export function Button({ look = "plain", icon, children, className = "", ...rest }: ButtonProps) {
  return (
    <button type="button" className={`button button-${look} ${className}`} {...rest}>
      {icon && <Icon name={icon} size={14} />}
      {children}
    </button>
  );
}

let pagesShown = 0;

/** The heading of a page; names the window and takes the focus after a navigation, so that it is read out. */
export function PageHeader({ title, hint, children }: { title: string; hint?: ReactNode; children?: ReactNode }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    if (pagesShown > 0) heading.current?.focus({ preventScroll: true });
    pagesShown += 1;
  }, []);
  useEffect(() => {
    document.title = `${title} · Sealift`;
  }, [title]);
  return (
    <header className="page-header">
      <div>
        <h1 ref={heading} tabIndex={-1}>{title}</h1>
        {hint && <p className="muted">{hint}</p>}
      </div>
      <div className="page-actions">{children}</div>
    </header>
  );
}

interface PanelProps {
  title: ReactNode;
  aside?: ReactNode;
  children: ReactNode;
  className?: string;
}

export function Panel({ title, aside, children, className = "" }: PanelProps) {
  const id = useId();
  return (
    <section className={`panel ${className}`} aria-labelledby={id}>
      <div className="panel-head">
        <h2 id={id}>{title}</h2>
        {aside && <div className="panel-aside">{aside}</div>}
      </div>
      {children}
    </section>
  );
}

/** How long ago, with the exact time on hover. */
export function Age({ at }: { at: number | null | undefined }) {
  const { age, dateTime, say } = useLocale();
  const text = useTicking((now) => (at == null ? say("common.never") : age(at, now)));
  if (at == null) return <span className="muted">{text}</span>;
  return <time dateTime={new Date(at).toISOString()} title={dateTime(at)}>{text}</time>;
}

export function Digest({ digest }: { digest: string | null | undefined }) {
  if (!digest) return <span className="muted">—</span>;
  return <code className="digest" title={digest}>{shortDigest(digest)}</code>;
}

/** What a page says where there is nothing to list. */
export function Empty({ children, icon = "check" }: { children: ReactNode; icon?: IconName }) {
  return (
    <p className="empty">
      <Icon name={icon} size={18} />
      <span>{children}</span>
    </p>
  );
}

/** A wide table scrolls by itself and by keyboard; the page does not. A group, since a landmark stands around it. */
export function TableScroll({ label, children }: { label: string; children: ReactNode }) {
  return (
    <div className="table-scroll" role="group" aria-label={label} tabIndex={0}>
      {children}
    </div>
  );
}

/** Pairs of a name and what stands for it. */
export function Facts({ rows }: { rows: [string, ReactNode][] }) {
  return (
    <dl className="facts">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Labels({ labels }: { labels: Record<string, string> }) {
  const entries = Object.entries(labels);
  if (entries.length === 0) return <span className="muted">—</span>;
  return (
    <span className="labels">
      {entries.map(([key, value]) => (
        <span key={key} className="label">
          <span className="muted">{key}</span> {value}
        </span>
      ))}
    </span>
  );
}

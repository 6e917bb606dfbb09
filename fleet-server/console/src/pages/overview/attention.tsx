// What needs a person, worst first, each with the page where it is settled.

import type { AttentionItem } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Panel } from "../../ui/basics";
import { Icon } from "../../ui/icon";
import { SeverityMark } from "../../ui/mark";
import { ServerLink } from "../../ui/server-link";

/** More than these make a wall that nobody reads; the rest are on the page of alerts. */
const SHOWN_MAX = 6;

export function Attention({ items }: { items: AttentionItem[] }) {
  const { say } = useLocale();
  if (items.length === 0) {
    return (
      <p className="all-well">
        <Icon name="check" size={20} />
        <span>{say("overview.allWell")}</span>
      </p>
    );
  }
  return (
    <Panel title={say("overview.attention", { count: items.length })} className="attention">
      <ul>
        {items.slice(0, SHOWN_MAX).map((item) => (
          <li key={item.href + item.title}>
            <SeverityMark severity={item.severity} />
            <div>
              <ServerLink href={item.href}>{item.title}</ServerLink>
              <p className="muted">{item.detail}</p>
            </div>
            <Icon name="arrow" />
          </li>
        ))}
      </ul>
      {items.length > SHOWN_MAX && (
        <p className="muted"><ServerLink href="/alerts">{say("overview.more", { count: items.length - SHOWN_MAX })}</ServerLink></p>
      )}
    </Panel>
  );
}

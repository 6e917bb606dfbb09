// The header: where to look, how fresh the data is, and the way back.

import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { statusQuery } from "../api/queries";
import { wishHalt } from "../halt/wish";
import { useLocale } from "../i18n/language";
import { useConnection } from "../live/connection";
import { useTicking } from "../live/hooks";
import { wishRollback } from "../rollback/wish";
import { chooseTheme, useTheme } from "../theme";
import { Button } from "../ui/basics";
import { Icon } from "../ui/icon";
import { AccountMenu } from "./account";

export function Header({ onSearch }: { onSearch: () => void }) {
  const { say } = useLocale();
  return (
    <header className="header">
      <Link to="/" className="brand" aria-label={say("nav.home")}>
        <Logo />
        <span>Sealift</span>
      </Link>
      <button type="button" className="search-button" onClick={onSearch} aria-keyshortcuts="Control+K">
        <Icon name="search" size={14} />
        <span>{say("palette.open")}</span>
        <kbd>Ctrl K</kbd>
      </button>
      <div className="header-tools">
        <ConnectionMark />
        <Bell />
        <LanguageSwitch />
        <ThemeSwitch />
        <AccountMenu />
        <button type="button" className="icon-button" aria-label={say("halt.open")} title={say("halt.open")} onClick={() => wishHalt("halt")}>
          <Icon name="pause" />
        </button>
        <Button look="danger" icon="back" className="rollback-button" onClick={() => wishRollback({})}>
          {say("rollback.button")}
        </Button>
      </div>
    </header>
  );
}

function Logo() {
  return (
    <svg className="logo" width="24" height="24" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <rect className="logo-ground" width="32" height="32" rx="7" />
      <path className="logo-hull" d="M7 20h18l-3.2 5.2a2 2 0 0 1-1.7 1H11.9a2 2 0 0 1-1.7-1z" />
      <path className="logo-lift" d="M16 17V6m-4.5 4.3L16 5.8l4.5 4.5" />
    </svg>
  );
}

/** Says whether what is on the page is of now, and else of when. */
function ConnectionMark() {
  const { say, age } = useLocale();
  const { state, heardAt } = useConnection();
  const text = useTicking((now) => {
    if (state === "connecting") return say("connection.connecting");
    return say(state === "live" ? "connection.live" : "connection.lost", { age: age(heardAt, now) });
  });
  return (
    <span className={`connection connection-${state}`} role="status" aria-live="off" title={say("connection.hint")}>
      <span className="connection-dot" aria-hidden="true" />
      <span className="connection-text">{text}</span>
    </span>
  );
}

function Bell() {
  const { say } = useLocale();
  const count = useQuery(statusQuery).data?.alerts_open ?? 0;
  return (
    <Link to="/alerts" className="icon-button bell" aria-label={say("alerts.bell", { count })}>
      <Icon name="alerts" />
      {count > 0 && <span className="bell-count" aria-hidden="true">{count > 99 ? "99+" : count}</span>}
    </Link>
  );
}

function LanguageSwitch() {
  const { language, setLanguage, say } = useLocale();
  const other = language === "en" ? "ja" : "en";
  return (
    <button type="button" className="icon-button" onClick={() => setLanguage(other)} aria-label={say("language.switch")}>
      <span lang={other} aria-hidden="true">{other === "ja" ? "日本語" : "EN"}</span>
    </button>
  );
}

function ThemeSwitch() {
  const { say } = useLocale();
  const other = useTheme() === "light" ? "dark" : "light";
  return (
    <button type="button" className="icon-button" onClick={() => chooseTheme(other)} aria-label={say(`theme.${other}`)}>
      <Icon name={other === "dark" ? "moon" : "sun"} />
    </button>
  );
}

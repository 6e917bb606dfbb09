// What stands around every page: header, navigation, and the dialogs that open from anywhere.

import { Link, Outlet } from "@tanstack/react-router";
import { lazy, Suspense, useEffect, useState } from "react";
import { HaltBanner } from "../halt/banner";
import { useHaltWish } from "../halt/wish";
import { useLocale } from "../i18n/language";
import { openStream } from "../live/connection";
import { useRollbackWish } from "../rollback/wish";
import { Icon, type IconName } from "../ui/icon";
import { Header } from "./header";
import { useConfirmation } from "./confirmation";

const loadPalette = () => import("./palette").then((module) => ({ default: module.Palette }));
const loadRollback = () => import("../rollback/dialog").then((module) => ({ default: module.RollbackDialog }));
const Palette = lazy(loadPalette);
const RollbackDialog = lazy(loadRollback);
const HaltDialog = lazy(() => import("../halt/dialog").then((module) => ({ default: module.HaltDialog })));
const StepUpDialog = lazy(() => import("./step-up").then((module) => ({ default: module.StepUpDialog })));

/** The first page goes first. */
const LOAD_DIALOGS_AFTER_MS = 500;

export const destinations = [
  { to: "/", key: "nav.overview", icon: "overview" },
  { to: "/devices", key: "nav.devices", icon: "devices" },
  { to: "/models", key: "nav.models", icon: "models" },
  { to: "/rollouts", key: "nav.rollouts", icon: "rollouts" },
  { to: "/drift", key: "nav.drift", icon: "drift" },
  { to: "/review", key: "nav.review", icon: "eye" },
  { to: "/alerts", key: "nav.alerts", icon: "alerts" },
  { to: "/audit", key: "nav.audit", icon: "audit" },
  { to: "/settings", key: "nav.settings", icon: "settings" },
] as const satisfies readonly { to: string; key: string; icon: IconName }[];

export function Shell() {
  const { say } = useLocale();
  const [isPaletteOpen, setIsPaletteOpen] = useState(false);
  const wish = useRollbackWish();
  const haltWish = useHaltWish();
  const confirmation = useConfirmation();
  useEffect(openStream, []);
  useEffect(loadDialogs, []);
  useEffect(() => onPaletteKeys(() => setIsPaletteOpen(true)), []);
  return (
    <div className="shell">
      <a className="skip-link" href="#main">{say("nav.skip")}</a>
      <Header onSearch={() => setIsPaletteOpen(true)} />
      <Navigation />
      <main id="main" className="page" tabIndex={-1}>
        <HaltBanner />
        <Outlet />
      </main>
      <Suspense fallback={null}>
        {isPaletteOpen && <Palette onClose={() => setIsPaletteOpen(false)} />}
        {wish && <RollbackDialog wish={wish} />}
        {haltWish && <HaltDialog wish={haltWish} />}
        {confirmation && <StepUpDialog onEnd={confirmation} />}
      </Suspense>
    </div>
  );
}

function Navigation() {
  const { say } = useLocale();
  return (
    <nav className="nav" aria-label={say("nav.label")}>
      <ul>
        {destinations.map(({ to, key, icon }) => (
          <li key={to}>
            <Link to={to} activeOptions={{ exact: to === "/" }} activeProps={{ "aria-current": "page" }}>
              <Icon name={icon} />
              <span>{say(key)}</span>
            </Link>
          </li>
        ))}
      </ul>
    </nav>
  );
}

/** The way back opens at once when it is needed, and letters typed after Ctrl-K are not lost. */
function loadDialogs(): () => void {
  const wait = setTimeout(() => void Promise.allSettled([loadPalette(), loadRollback()]), LOAD_DIALOGS_AFTER_MS);
  return () => clearTimeout(wait);
}

function onPaletteKeys(open: () => void): () => void {
  const listen = (event: KeyboardEvent) => {
    if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    open();
  };
  window.addEventListener("keydown", listen);
  return () => window.removeEventListener("keydown", listen);
}

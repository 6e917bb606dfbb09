// Light or dark: as the system has it, until somebody chooses.

import { useSyncExternalStore } from "react";

export type Theme = "light" | "dark";

const STORED_AS = "sealift.theme";
const system = () => window.matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();

function currentTheme(): Theme {
  const chosen = localStorage.getItem(STORED_AS);
  if (chosen === "light" || chosen === "dark") return chosen;
  return system().matches ? "dark" : "light";
}

/** Puts the theme on the document; called before the first paint. */
export function applyTheme(): void {
  document.documentElement.dataset.theme = currentTheme();
}

export function chooseTheme(theme: Theme): void {
  localStorage.setItem(STORED_AS, theme);
  applyTheme();
  for (const listener of listeners) listener();
}

export function useTheme(): Theme {
  return useSyncExternalStore(subscribe, currentTheme);
}

function subscribe(listener: () => void): () => void {
  const media = system();
  const follow = () => {
    applyTheme();
    listener();
  };
  listeners.add(listener);
  media.addEventListener("change", follow);
  return () => {
    listeners.delete(listener);
    media.removeEventListener("change", follow);
  };
}

// The same for a terminal. Pure.

import { shellQuote } from "../ui/shell-quote";
import type { HaltWish } from "./wish";

export function commandOf(wish: HaltWish, reason: string): string {
  const given = reason.trim();
  if (wish === "halt") return `fleetctl halt --all --reason ${shellQuote(given === "" ? "…" : given)}`;
  return given === "" ? "fleetctl resume" : `fleetctl resume --reason ${shellQuote(given)}`;
}

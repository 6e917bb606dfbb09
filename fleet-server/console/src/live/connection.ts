// The one stream of events: whether it is up, when it last said something, and who gets what it says.

import { useSyncExternalStore } from "react";
import { queryClient } from "../api/queries";
import type { AlertView, DeviceView, RolloutView, Status } from "../api/types";
import { recordRate } from "./history";
import { Overlay } from "./overlay";

export type ConnectionState = "connecting" | "live" | "lost";

export interface Connection {
  state: ConnectionState;
  /** When something last came; 0 before anything did. */
  heardAt: number;
}

/** Lists are read again at most this often for changes that the stream tells only in part. */
const LISTS_EVERY_MS = 5_000;

/** The overview in numbers is drawn at most this often; it is read by people. */
const STATUS_EVERY_MS = 1_000;

/** With the window hidden no frame comes, and nothing needs to be drawn. */
const nextFrame = (flush: () => void) => {
  if (document.hidden) setTimeout(flush, 1_000);
  else requestAnimationFrame(flush);
};

export const liveDevices = new Overlay<DeviceView>(nextFrame);

let connection: Connection = { state: "connecting", heardAt: 0 };
const listeners = new Set<() => void>();
let newestStatus: Status | undefined;
const waiting = new Set<string>();

/** Opens the stream; the returned function closes it. The browser connects again by itself. */
export function openStream(): () => void {
  const source = new EventSource("/api/v1/events");
  const on = <T>(kind: string, take: (view: T) => void) =>
    source.addEventListener(kind, (event: MessageEvent<string>) => {
      set({ state: "live", heardAt: Date.now() });
      take(JSON.parse(event.data) as T);
    });
  source.onopen = () => {
    if (connection.state === "lost") readEverythingAgain();
    set({ state: "live", heardAt: Date.now() });
  };
  source.onerror = () => set({ ...connection, state: "lost" });
  on<DeviceView>("device", takeDevice);
  on<RolloutView>("rollout", takeRollout);
  on<AlertView>("alert", () => readAgainSoon("alerts"));
  on<Status>("status", takeStatus);
  return () => source.close();
}

export function useConnection(): Connection {
  return useSyncExternalStore(subscribe, () => connection);
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function set(next: Connection): void {
  // A second is as exact as the header shows it.
  const isSame = next.state === connection.state && next.heardAt - connection.heardAt < 1_000;
  if (isSame) return;
  connection = next;
  for (const listener of listeners) listener();
}

function takeDevice(device: DeviceView): void {
  liveDevices.put(device.id, device, Date.now());
  if (queryClient.getQueryState(["timeline", device.id])) readAgainSoon("timeline", device.id);
}

function takeRollout(rollout: RolloutView): void {
  queryClient.setQueryData(["rollout", rollout.id], rollout);
  readAgainSoon("rollouts");
  readAgainSoon("why", rollout.id);
  readAgainSoon("audit", "of", rollout.id);
}

function takeStatus(status: Status): void {
  if (newestStatus === undefined) setTimeout(showStatus, STATUS_EVERY_MS);
  newestStatus = status;
}

function showStatus(): void {
  const status = newestStatus;
  newestStatus = undefined;
  if (!status) return;
  queryClient.setQueryData(["status"], status);
  recordRate(status.at, status.requests_per_s);
  readAgainSoon("devices", "count");
  readAgainSoon("models");
}

/** What the stream said before a gap may be old, and what it would have said is lost. */
function readEverythingAgain(): void {
  liveDevices.clear();
  void queryClient.invalidateQueries();
}

function readAgainSoon(...key: string[]): void {
  const name = key.join("/");
  if (waiting.has(name)) return;
  waiting.add(name);
  setTimeout(() => {
    waiting.delete(name);
    void queryClient.invalidateQueries({ queryKey: key });
  }, LISTS_EVERY_MS);
}

// One device in the list.

import type { DeviceView, SlotView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { useLiveDevice } from "../../live/hooks";
import { Age, Labels } from "../../ui/basics";
import { DeviceMark } from "../../ui/mark";
import { DeviceLink } from "../../ui/model-link";

interface DeviceRowProps {
  read: DeviceView;
  readAt: number;
  index: number;
  top: number;
  isSelected: boolean;
  onToggle: (id: string) => void;
}

export function DeviceRow({ read, readAt, index, top, isSelected, onToggle }: DeviceRowProps) {
  const { say, number } = useLocale();
  const device = useLiveDevice(read, readAt);
  const { health } = device;
  return (
    <div
      role="row"
      className={`grid-row ${isSelected ? "is-selected" : ""}`}
      aria-rowindex={index + 2}
      style={{ transform: `translateY(${top}px)` }}
    >
      <span role="cell">
        <input
          type="checkbox"
          aria-label={say("devices.select", { device: device.id })}
          checked={isSelected}
          onChange={() => onToggle(device.id)}
        />
      </span>
      <span role="cell"><DeviceMark state={device.state} /></span>
      <span role="cell" className="strong"><DeviceLink device={device.id} /></span>
      <span role="cell"><Labels labels={device.labels} /></span>
      <span role="cell" className="slots">
        {device.slots.length === 0 ? <span className="muted">—</span> : device.slots.map((slot) => <SlotText key={slot.model} slot={slot} />)}
      </span>
      <span role="cell" className="number">{health ? `${number(health.latency_p95_ms)} ms` : "—"}</span>
      <span role="cell" className="number">{health ? number(health.errors) : "—"}</span>
      <span role="cell" className="number muted"><Age at={device.seen_at} /></span>
    </div>
  );
}

/** What is served; and where it should be something else, what. */
function SlotText({ slot }: { slot: SlotView }) {
  const { say } = useLocale();
  const isSettled = slot.desired === slot.serving;
  return (
    <span className={isSettled ? "slot" : "slot is-moving"}>
      {slot.model}@{slot.serving ?? "—"}
      {!isSettled && <> → {slot.desired ?? say("device.nothing")}</>}
      {!isSettled && slot.phase && <span className="muted"> {say(`phase.${slot.phase}`)}</span>}
    </span>
  );
}

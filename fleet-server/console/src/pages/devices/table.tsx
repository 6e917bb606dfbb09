// Rows of devices: only those in sight exist, and each listens to its own device.

import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef } from "react";
import type { DeviceView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { DeviceRow } from "./row";

interface DeviceTableProps {
  devices: DeviceView[];
  total: number;
  readAt: number;
  selected: ReadonlySet<string>;
  onSelected: (selected: ReadonlySet<string>) => void;
  onEnd: () => void;
}

const ROW_PX = 36;
/** Rows drawn beyond the edge, so that scrolling shows no gap. */
const OVERSCAN = 12;
/** The next page is asked for this many rows before the end. */
const AHEAD = 30;

export function DeviceTable({ devices, total, readAt, selected, onSelected, onEnd }: DeviceTableProps) {
  const { say } = useLocale();
  const scroller = useRef<HTMLDivElement>(null);
  const rows = useVirtualizer({
    count: devices.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PX,
    overscan: OVERSCAN,
  });
  const inSight = rows.getVirtualItems();
  const last = inSight.at(-1)?.index ?? 0;
  const isNearEnd = last >= devices.length - AHEAD;
  useEffect(() => {
    if (isNearEnd) onEnd();
  }, [isNearEnd, onEnd]);

  const isAll = devices.length > 0 && devices.every(({ id }) => selected.has(id));
  const toggle = (id: string) => {
    const next = new Set(selected);
    if (!next.delete(id)) next.add(id);
    onSelected(next);
  };
  return (
    <div ref={scroller} className="grid-scroll" tabIndex={0} role="region" aria-label={say("devices.table")}>
      <div className="grid" role="table" aria-label={say("devices.table")} aria-rowcount={total + 1}>
        <div role="rowgroup" className="grid-head">
          <div role="row" className="grid-row" aria-rowindex={1}>
            <span role="columnheader">
              <input
                type="checkbox"
                aria-label={say("devices.selectLoaded", { count: devices.length })}
                checked={isAll}
                onChange={() => onSelected(isAll ? new Set() : new Set(devices.map(({ id }) => id)))}
              />
            </span>
            <span role="columnheader">{say("devices.state")}</span>
            <span role="columnheader">{say("devices.device")}</span>
            <span role="columnheader">{say("devices.labels")}</span>
            <span role="columnheader">{say("devices.models")}</span>
            <span role="columnheader" className="number">{say("devices.latency")}</span>
            <span role="columnheader" className="number">{say("devices.errors")}</span>
            <span role="columnheader" className="number">{say("devices.seen")}</span>
          </div>
        </div>
        <div role="rowgroup" className="grid-body" style={{ height: rows.getTotalSize() }}>
          {inSight.map(({ index, start }) => {
            const device = devices[index];
            return (
              device && (
                <DeviceRow
                  key={device.id}
                  read={device}
                  readAt={readAt}
                  index={index}
                  top={start}
                  isSelected={selected.has(device.id)}
                  onToggle={toggle}
                />
              )
            );
          })}
        </div>
      </div>
    </div>
  );
}

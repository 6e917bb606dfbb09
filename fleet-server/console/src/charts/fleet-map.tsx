// The fleet as squares, one per device, grouped by place; and the same as a table.

import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { fleetQuery } from "../api/fleet";
import type { DeviceState, DeviceView } from "../api/types";
import { useLocale } from "../i18n/language";
import { Button, Empty, TableScroll } from "../ui/basics";
import { Loaded } from "../ui/loaded";
import { DeviceMark } from "../ui/mark";
import { type FleetGroup, groupFleet } from "./fleet-groups";
import { FleetCanvas } from "./fleet-canvas";

const states: DeviceState[] = ["online", "unhealthy", "offline", "revoked"];

export function FleetMap() {
  const { say } = useLocale();
  const fleet = useQuery(fleetQuery);
  return (
    <Loaded query={fleet}>
      {({ devices, total }) =>
        total === 0 ? (
          <Empty icon="devices">{say("fleet.empty")}</Empty>
        ) : (
          <Groups devices={devices} total={total} readAt={fleet.dataUpdatedAt} />
        )
      }
    </Loaded>
  );
}

function Groups({ devices, total, readAt }: { devices: DeviceView[]; total: number; readAt: number }) {
  const { say, number } = useLocale();
  const [isTable, setIsTable] = useState(false);
  const { label, groups } = groupFleet(devices);
  return (
    <div className="fleet-map">
      <div className="fleet-legend">
        {states.map((state) => <DeviceMark key={state} state={state} />)}
        <Button look="quiet" aria-pressed={isTable} onClick={() => setIsTable(!isTable)}>{say("chart.asTable")}</Button>
      </div>
      <div className={isTable ? "visually-hidden" : "fleet-groups"} aria-hidden="true">
        {groups.map((group) => (
          <div key={group.name} className="fleet-group">
            <p className="small"><strong>{group.name}</strong> <span className="muted">{number(group.devices.length)}</span></p>
            <FleetCanvas devices={group.devices} readAt={readAt} />
          </div>
        ))}
      </div>
      <div className={isTable ? "" : "visually-hidden"}>
        <FleetTable label={label} groups={groups} isReachable={isTable} />
      </div>
      {devices.length < total && <p className="muted small">{say("fleet.part", { shown: devices.length, total })}</p>}
    </div>
  );
}

interface FleetTableProps {
  label: string;
  groups: FleetGroup[];
  /** Links that cannot be seen must not take the focus. */
  isReachable: boolean;
}

function FleetTable({ label, groups, isReachable }: FleetTableProps) {
  const { say, number } = useLocale();
  const table = (
    <table className="table">
      <caption className="visually-hidden">{say("fleet.table")}</caption>
      <thead>
        <tr>
          <th scope="col">{label === "" ? say("fleet.group") : label}</th>
          {states.map((state) => <th key={state} scope="col" className="number">{say(`device.state.${state}`)}</th>)}
        </tr>
      </thead>
      <tbody>
        {groups.map((group) => (
          <tr key={group.name}>
            <th scope="row">
              {isReachable && label !== "" ? (
                <Link to="/devices" search={{ filter: `${label}:${group.name}` }}>{group.name}</Link>
              ) : (
                group.name
              )}
            </th>
            {states.map((state) => (
              <td key={state} className="number">{number(group.devices.filter((device) => device.state === state).length)}</td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
  return isReachable ? <TableScroll label={say("fleet.table")}>{table}</TableScroll> : table;
}

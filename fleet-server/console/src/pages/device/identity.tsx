// What the device is: certificate, hardware, software.

import type { DeviceView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Age, Facts } from "../../ui/basics";

const MIB = 1024 * 1024;

export function Identity({ device }: { device: DeviceView }) {
  const { say, number, bytes } = useLocale();
  const { facts } = device;
  const unknown = <span className="muted">—</span>;
  return (
    <Facts
      rows={[
        [say("identity.certificate"), <Age key="certificate" at={device.certificate_expires_at} />],
        [say("identity.serial"), device.certificate_serial ? <code key="serial">{device.certificate_serial}</code> : unknown],
        [say("identity.enrolled"), <Age key="enrolled" at={device.enrolled_at} />],
        [say("identity.agent"), device.agent ?? unknown],
        [say("identity.system"), facts ? `${facts.os} / ${facts.architecture}` : unknown],
        [say("identity.hardware"), facts ? say("identity.processors", { count: facts.processors }) : unknown],
        [say("identity.memory"), facts ? bytes(facts.memory_mb * MIB) : unknown],
        [say("identity.disk"), facts ? bytes(facts.disk_mb * MIB) : unknown],
        [say("identity.runtime"), facts?.runtime || unknown],
        [say("identity.offered"), facts?.providers?.map((name) => name.replace(/ExecutionProvider$/, "")).join(", ") || unknown],
        [say("identity.simulated"), facts?.simulated ? say("common.yes") : say("common.no")],
        [say("identity.endpoint"), device.endpoint ? <code key="endpoint">{device.endpoint}</code> : unknown],
        [say("identity.generation"), number(device.desired_generation)],
      ]}
    />
  );
}

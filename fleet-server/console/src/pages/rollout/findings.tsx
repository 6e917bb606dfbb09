// What was found before a rollout begins, worst first.

import type { Finding } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { FindingMark } from "../../ui/mark";
import { DeviceLink } from "../../ui/model-link";

export function Findings({ findings }: { findings: Finding[] }) {
  const { say } = useLocale();
  if (findings.length === 0) return <p className="muted">{say("finding.none")}</p>;
  return (
    <ul className="findings">
      {findings.map((finding) => (
        // Several waves may be found wanting in the same way.
        <li key={finding.code + finding.text}>
          <FindingMark severity={finding.severity} /> <span>{finding.text}</span>{" "}
          <code className="small muted">{finding.code}</code>{" "}
          <span className="labels">{finding.examples?.map((device) => <DeviceLink key={device} device={device} />)}</span>
        </li>
      ))}
    </ul>
  );
}

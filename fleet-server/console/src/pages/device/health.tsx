// The last heartbeat in numbers.

import type { HealthView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Empty, Facts } from "../../ui/basics";

const MIB = 1024 * 1024;

export function Health({ health }: { health: HealthView | null | undefined }) {
  const { say, number, share, bytes, duration } = useLocale();
  if (!health) return <Empty icon="queued">{say("health.none")}</Empty>;
  const asked = health.requests + health.errors;
  return (
    <Facts
      rows={[
        [say("health.requests"), number(health.requests)],
        [say("health.errors"), `${number(health.errors)} (${share(asked > 0 ? health.errors / asked : 0)})`],
        [say("health.latency"), `${number(health.latency_p95_ms)} ms`],
        [say("health.restarts"), number(health.restarts)],
        [say("health.cpu"), share(health.cpu)],
        [say("health.memory"), bytes(health.memory_free_mb * MIB)],
        [say("health.disk"), bytes(health.disk_free_mb * MIB)],
        [say("health.temperature"), health.temperature_c == null ? "—" : `${number(health.temperature_c)} °C`],
        [say("health.spooled"), number(health.spooled)],
        [say("health.clock"), `${number(health.clock_skew_ms)} ms`],
        [say("health.uptime"), duration(health.uptime_s)],
      ]}
    />
  );
}

// Waves as lanes, and between two lanes the gate that leads from one to the next.

import type { GateView, RolloutView, WaveView } from "../../api/types";
import { LimitBar, StackedBar } from "../../ui/bar";
import { Age } from "../../ui/basics";
import { useLocale } from "../../i18n/language";
import { Mark, WaveMark } from "../../ui/mark";

export function Waves({ rollout }: { rollout: RolloutView }) {
  const { say } = useLocale();
  return (
    <ol className="lanes" aria-label={say("rollout.waves")} tabIndex={0}>
      {rollout.waves.map((wave, index) => (
        // Waves have no id; their order never changes.
        <li key={index} className={`lane lane-${wave.state}`}>
          <Lane wave={wave} number={index + 1} />
          {wave.gates.length > 0 && <Gates gates={wave.gates} isLast={index === rollout.waves.length - 1} />}
        </li>
      ))}
    </ol>
  );
}

function Lane({ wave, number }: { wave: WaveView; number: number }) {
  const { say } = useLocale();
  const rest = Math.max(0, wave.devices - wave.succeeded - wave.bad);
  const segments = [
    { key: "good", label: say("wave.good"), value: wave.succeeded, className: "fill-ok" },
    { key: "bad", label: say("wave.bad"), value: wave.bad, className: "fill-bad" },
    { key: "rest", label: say("wave.rest"), value: rest, className: "fill-idle" },
  ];
  return (
    <div className="lane-body">
      <p className="lane-name">
        <strong>{wave.plan.name || say("wave.numbered", { number })}</strong> <WaveMark state={wave.state} />
      </p>
      <p className="lane-size">{say("wave.size", { count: wave.devices })} <span className="muted"><Share wave={wave} /></span></p>
      {wave.plan.filter && <p className="small">{say("wave.filterIs", { filter: wave.plan.filter })}</p>}
      {wave.plan.min_devices != null && <p className="small muted">{say("wave.minDevices", { count: wave.plan.min_devices })}</p>}
      <StackedBar segments={segments} label={say("wave.counts", { good: wave.succeeded, bad: wave.bad, rest })} />
      <p className="small">{say("wave.counts", { good: wave.succeeded, bad: wave.bad, rest })}</p>
      <p className="muted small"><Soak wave={wave} /></p>
    </div>
  );
}

function Share({ wave }: { wave: WaveView }) {
  const { say, number } = useLocale();
  if (wave.plan.percent != null) return say("wave.upToPercent", { percent: number(wave.plan.percent) });
  if (wave.plan.count != null) return say("wave.upToCount", { count: wave.plan.count });
  return say("wave.all");
}

function Soak({ wave }: { wave: WaveView }) {
  const { say, duration } = useLocale();
  if (wave.state === "soaking" && wave.soak_until) return <>{say("wave.soakUntil")} <Age at={wave.soak_until} /></>;
  if (wave.opened_at) return <>{say("wave.opened")} <Age at={wave.opened_at} /></>;
  return wave.plan.soak_s ? <>{say("wave.soak", { duration: duration(wave.plan.soak_s) })}</> : null;
}

function Gates({ gates, isLast }: { gates: GateView[]; isLast: boolean }) {
  const { say } = useLocale();
  return (
    <div className="gates">
      <p className="gate-title muted small">{say(isLast ? "gate.toEnd" : "gate.toNext")}</p>
      <ul>
        {gates.map((gate) => <Gate key={gate.name} gate={gate} />)}
      </ul>
    </div>
  );
}

function Gate({ gate }: { gate: GateView }) {
  const { say, share } = useLocale();
  const name = isKnown(gate.name) ? say(`gate.${gate.name}`) : gate.name;
  const limit = share(gate.limit);
  if (gate.value == null) {
    return (
      <li>
        <Mark tone="idle" icon="queued">{name}</Mark>
        <span className="small muted">{say("gate.notYet", { limit })}</span>
      </li>
    );
  }
  const { evidence } = gate;
  const text = evidence?.text ?? say("gate.against", { value: share(gate.value), limit });
  // Evidence multiplies: half of the way to its limit is the limit's square root.
  const [value, end] = evidence ? [Math.log10(Math.max(1, evidence.e_value)), Math.log10(evidence.e_limit)] : [gate.value, gate.limit];
  return (
    <li>
      <Mark tone={gate.passed ? "ok" : "bad"} icon={gate.passed ? "check" : "critical"}>{name}</Mark>
      <LimitBar value={value} limit={end} isGood={gate.passed} label={text} />
      <span className="small">{text}</span>
    </li>
  );
}

const KNOWN = ["bad-share", "error-share", "error-rise", "latency-rise", "confidence-fall", "class-shift", "input-rise", "disagreement"] as const;

function isKnown(name: string): name is (typeof KNOWN)[number] {
  return (KNOWN as readonly string[]).includes(name);
}

// After the button: how many devices prove by their own reports that they are back.

import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { rolloutQuery } from "../api/queries";
import type { RollbackResult, RolloutView } from "../api/types";
import { useLocale } from "../i18n/language";
import { StackedBar } from "../ui/bar";
import { Button } from "../ui/basics";
import { Icon } from "../ui/icon";
import { Loaded } from "../ui/loaded";
import { ProgressCounts } from "../ui/progress-counts";
import { proofOf } from "./plan";

/** The stream tells each change; this is for a stream that is down. */
const LOOK_AGAIN_MS = 3_000;

export function RollbackProgress({ started, onClose }: { started: RollbackResult; onClose: () => void }) {
  const { say } = useLocale();
  const id = started.rollout ?? "";
  const steps = (started.steps ?? []).flatMap(({ rollout }) => rollout ?? []);
  return (
    <>
      <div className="dialog-body stack">
        {(steps.length > 0 ? steps : [id]).map((step) => <StepProof key={step} id={step} />)}
      </div>
      <div className="dialog-foot">
        <p className="muted">{say("rollback.goesOn")}</p>
        <Link className="button button-plain" to="/rollouts/$rollout" params={{ rollout: id }} onClick={onClose}>
          {say("rollback.openRollout", { rollout: id })}
        </Link>
        <Button look="main" onClick={onClose}>{say("common.close")}</Button>
      </div>
    </>
  );
}

function StepProof({ id }: { id: string }) {
  const rollout = useQuery({ ...rolloutQuery(id), enabled: id !== "", refetchInterval: LOOK_AGAIN_MS });
  return <Loaded query={rollout}>{(view) => <Proof rollout={view} />}</Loaded>;
}

function Proof({ rollout }: { rollout: RolloutView }) {
  const { say } = useLocale();
  const proof = proofOf(rollout);
  const text = { serving: proof.serving, total: proof.total, version: rollout.version };
  const segments = [
    { key: "serving", label: say("rollback.serving"), value: proof.serving, className: "fill-ok" },
    { key: "bad", label: say("rollback.bad"), value: proof.bad, className: "fill-bad" },
    { key: "waiting", label: say("rollback.waiting"), value: proof.waiting, className: "fill-idle" },
  ];
  return (
    <>
      <p className={`proof ${proof.isProved ? "is-proved" : ""}`} role="status">
        <Icon name={proof.isProved ? "check" : "running"} size={22} />
        <span>{proof.isProved ? say("rollback.proved", text) : say("rollback.proving", text)}</span>
      </p>
      <StackedBar segments={segments} label={say("rollback.proving", text)} />
      <ProgressCounts progress={rollout.progress} />
      <p>{rollout.why}</p>
      <p className="muted small">{say("rollback.proofMeans")}</p>
    </>
  );
}

import { fireEvent, render, screen } from "@testing-library/react";
import { useState } from "react";
import { expect, it } from "vitest";
import { LocaleProvider } from "../../i18n/language";
import { type Draft, draftOf, rolloutOf } from "./draft";
import { BehaviourFields, ShadowFields } from "./trial-fields";

let draft: Draft;

function Form() {
  const [now, setNow] = useState<Draft>(draftOf([], {}));
  draft = now;
  const change = (part: Partial<Draft>) => setNow((before) => ({ ...before, ...part }));
  return (
    <LocaleProvider>
      <BehaviourFields draft={now} onChange={change} />
      <ShadowFields draft={now} onChange={change} />
    </LocaleProvider>
  );
}

const set = (label: RegExp, value: string) => fireEvent.change(screen.getByLabelText(label), { target: { value } });
const tick = (label: RegExp) => fireEvent.click(screen.getByLabelText(label));

it("asks for nothing before it is ticked, and for what is typed after it", () => {
  render(<Form />);
  expect(rolloutOf(draft).trial).toEqual({ probation_s: 600 });

  tick(/Take it back when it behaves worse/);
  set(/Latency higher/, "150");
  tick(/Compare it beside the live version/);
  expect((screen.getByLabelText(/All devices together/) as HTMLInputElement).value).toBe("2");
  set(/Agrees on at least/, "99.5");
  set(/Where little is asked/, "fail");

  expect((screen.getByLabelText(/All devices together/) as HTMLInputElement).value).toBe("0.5");
  const { trial, waves } = rolloutOf(draft);
  expect(trial?.behaviour?.latency_rise_permille).toBe(1500);
  expect([trial?.shadow?.agreement_permille, trial?.shadow?.quiet]).toEqual([995, "fail"]);
  expect(waves?.at(-1)?.gates?.disagreement).toBe(0.005);

  tick(/Take it back when it behaves worse/);
  tick(/Compare it beside the live version/);
  expect(rolloutOf(draft).trial).toEqual({ probation_s: 600 });
});

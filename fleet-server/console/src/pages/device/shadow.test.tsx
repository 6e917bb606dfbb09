import { cleanup, render, screen } from "@testing-library/react";
import { afterEach, describe, expect, it } from "vitest";
import type { SlotView } from "../../api/types";
import { Shadow } from "./slots";

type Shadowed = NonNullable<SlotView["shadow"]>;

const digest = `sha256:${"0".repeat(64)}`;

function shown(counts: Shadowed["counts"]) {
  const shadow: Shadowed = { image: { version: "7", index: digest }, live: { version: "6", index: digest }, since: 0, counts };
  render(<Shadow shadow={shadow} />);
}

afterEach(cleanup);

describe("a version beside the live one", () => {
  it("says how often both agree, what it took, and what it has answered", () => {
    shown({ rows: 500, agreed: 431, requests: 100, live_us: 1000, shadow_us: 2500, skipped: 3, failed: 1, answered: 20, returned: 1 });

    expect(screen.getByText(/7 beside 6: agrees on 86\.?2? ?% of 500 rows/)).toBeTruthy();
    expect(screen.getByText("25 µs in the engine, 10 µs with the live version")).toBeTruthy();
    expect(screen.getByText("3 requests skipped, 1 failed")).toBeTruthy();
    expect(screen.getByText("20 requests answered by 7, 1 handed back")).toBeTruthy();
  });

  it("says that nothing was compared yet, and no share of nothing", () => {
    shown({ rows: 0, agreed: 0, requests: 0, live_us: 0, shadow_us: 0, skipped: 0, failed: 0, answered: 0, returned: 0 });

    expect(screen.getByText("7 beside 6: no row compared yet")).toBeTruthy();
    expect(screen.queryByText(/NaN/)).toBeNull();
  });
});

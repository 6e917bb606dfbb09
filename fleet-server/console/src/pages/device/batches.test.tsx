import { cleanup, fireEvent, render, screen } from "@testing-library/react";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { BatchJob, BatchResultView } from "../../api/types";
import { JobTable, ResultTable } from "./batches";
import { ForgetForm } from "./forget";

const digest = `sha256:${"0".repeat(64)}`;

function job(name: string, more: Partial<BatchJob>): BatchJob {
  const run = { name, model: "vision/digits", input: "/data/rows.csv", output: "/data/out", rows: 256 };
  return { run, by: "ann", state: "done", answered: 0, parts: 0, failures: 0, reason: "", asked_at: 0, changed_at: 0, ...more };
}

function result(name: string, more: Partial<BatchResultView>): BatchResultView {
  return { device: "cam-1", name, model: "vision/digits", format: "jsonl", state: "here", bytes: 2048, size_bytes: 2048, digest, asked_by: "ann", asked_at: 0, done_at: 0, delete_at: 0, ...more };
}

afterEach(cleanup);

describe("batches on a device", () => {
  it("say how far they are and why they failed, and only open ones can be ended", () => {
    const onCancel = vi.fn();
    render(
      <JobTable
        jobs={[
          job("night", { state: "running", answered: 1234, brought: { bytes: 1024, size_bytes: 2048, digest } }),
          job("old", { state: "failed", reason: "rows.csv is damaged" }),
        ]}
        onCancel={onCancel}
      />,
    );

    expect(screen.getByText("1,234")).toBeTruthy();
    expect(screen.getByText(/of 2(\.0)? KiB/)).toBeTruthy();
    expect(screen.getByText("rows.csv is damaged")).toBeTruthy();
    expect(screen.queryByRole("button", { name: "End batch old" })).toBeNull();
    fireEvent.click(screen.getByRole("button", { name: "End batch night" }));
    expect(onCancel).toHaveBeenCalledWith("night");
  });
});

describe("predictions on the server", () => {
  it("can be downloaded once they are whole, and deleted at any time", () => {
    const onDelete = vi.fn();
    render(<ResultTable results={[result("night", {}), result("day", { state: "coming", bytes: 1 })]} onDelete={onDelete} />);

    const link = screen.getByRole("link", { name: "Download predictions of night" });
    expect(link.getAttribute("href")).toBe("/api/v1/devices/cam-1/batches/night/file");
    expect(link.getAttribute("download")).toBe("night-cam-1.jsonl");
    expect(screen.queryByRole("link", { name: "Download predictions of day" })).toBeNull();
    fireEvent.click(screen.getByRole("button", { name: "Delete predictions of day" }));
    expect(onDelete).toHaveBeenCalledWith("day");
  });
});

describe("forgetting a device", () => {
  it("takes a reason, and says it as it was given", () => {
    const onReason = vi.fn();
    render(<ForgetForm device="cam-1" isPending={false} error={null} onReason={onReason} onClose={() => undefined} />);
    const go = screen.getByRole("button", { name: "Delete for good" });
    const reason = screen.getByRole("textbox", { name: "Reason, for the audit log" });

    fireEvent.submit(reason.closest("form") as HTMLFormElement);
    expect((go as HTMLButtonElement).disabled).toBe(true);
    fireEvent.change(reason, { target: { value: "  asked by its owner " } });
    fireEvent.submit(reason.closest("form") as HTMLFormElement);

    expect(onReason).toHaveBeenCalledTimes(1);
    expect(onReason).toHaveBeenCalledWith("asked by its owner");
    expect(screen.getByRole("textbox", { name: "The same for a terminal" }).textContent).toBe("fleetctl device forget cam-1 --reason 'asked by its owner'");
  });
});

import { beforeEach, describe, expect, it, vi } from "vitest";
import { ANY_KEY, Overlay } from "./overlay";

let flush: (() => void) | undefined;
let scheduled = 0;
let overlay: Overlay<string>;

beforeEach(() => {
  scheduled = 0;
  overlay = new Overlay((run) => {
    scheduled += 1;
    flush = run;
  });
});

describe("the overlay", () => {
  it("shows what was told later than what was read", () => {
    overlay.put("cam-1", "told", 200);

    expect(overlay.newest("cam-1", "read", 100)).toBe("told");
    expect(overlay.newest("cam-1", "read", 200)).toBe("told");
    expect(overlay.newest("cam-1", "read", 201)).toBe("read");
    expect(overlay.newest("cam-2", "read", 100)).toBe("read");
  });

  it("calls only those who listen to the key, once for many messages", () => {
    const first = vi.fn();
    const second = vi.fn();
    overlay.subscribe("cam-1", first);
    overlay.subscribe("cam-2", second);

    overlay.put("cam-1", "a", 1);
    overlay.put("cam-1", "b", 2);
    expect(first).not.toHaveBeenCalled();
    flush?.();

    expect(scheduled).toBe(1);
    expect(first).toHaveBeenCalledTimes(1);
    expect(second).not.toHaveBeenCalled();
    expect(overlay.newest("cam-1", "read", 0)).toBe("b");
  });

  it("calls those who listen to every key", () => {
    const all = vi.fn();
    overlay.subscribe(ANY_KEY, all);

    overlay.put("cam-7", "a", 1);
    flush?.();

    expect(all).toHaveBeenCalledTimes(1);
  });

  it("schedules nothing for what nobody listens to", () => {
    overlay.put("cam-1", "a", 1);

    expect(scheduled).toBe(0);
    expect(overlay.newest("cam-1", undefined, 0)).toBe("a");
  });

  it("calls nobody after the end of a subscription", () => {
    const listener = vi.fn();
    const end = overlay.subscribe("cam-1", listener);
    overlay.put("cam-1", "a", 1);
    end();
    flush?.();

    expect(listener).not.toHaveBeenCalled();
  });

  it("forgets what was told before a gap", () => {
    overlay.put("cam-1", "told", 200);
    overlay.clear();

    expect(overlay.size).toBe(0);
    expect(overlay.newest("cam-1", "read", 100)).toBe("read");
  });
});

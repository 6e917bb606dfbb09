import { describe, expect, it } from "vitest";
import { commandOf } from "./command";

describe("the command", () => {
  it("says the same for a terminal", () => {
    expect(commandOf("halt", " smoke on line 4 ")).toBe("fleetctl halt --all --reason 'smoke on line 4'");
    expect(commandOf("resume", "")).toBe("fleetctl resume");
    expect(commandOf("resume", "it's out")).toBe("fleetctl resume --reason 'it'\\''s out'");
  });
});

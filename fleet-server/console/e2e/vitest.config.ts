import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    root: import.meta.dirname,
    environment: "node",
    include: ["*.e2e.ts"],
    fileParallelism: false,
    // A page on a slow machine, in four combinations of theme and language.
    testTimeout: 120_000,
    hookTimeout: 60_000,
  },
});

import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

/** Where `npm run dev` finds a fleet server. */
const server = process.env.SEALIFT_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  plugins: [react()],
  build: {
    // The content security policy allows no `data:` URL.
    assetsInlineLimit: 0,
    sourcemap: false,
    reportCompressedSize: false,
    // A route that is not visited is not loaded, so a large chunk is a mistake.
    chunkSizeWarningLimit: 400,
  },
  server: { host: "127.0.0.1", proxy: { "/api": server, "/openapi.json": server } },
  test: {
    environment: "jsdom",
    include: ["src/**/*.test.{ts,tsx}"],
    setupFiles: ["src/test-setup.ts"],
  },
});

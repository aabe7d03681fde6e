import { defineConfig } from "vite";

// One page, relative addresses: the registrar serves it from any host and port.
export default defineConfig({
  base: "./",
  build: { target: "es2022", chunkSizeWarningLimit: 800 },
});

import { defineConfig } from "vite";

export default defineConfig({
  ssr: { noExternal: true },
  build: { ssr: "server.ts", rolldownOptions: { output: { entryFileNames: "server.mjs" } } },
});

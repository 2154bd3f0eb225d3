/** The rows of the matrix: each is an example of `examples/hosts/`, as somebody would install, build and start it. */

export interface Row {
  readonly example: string;
  /** Installed on top of the example's own `package.json`. */
  readonly packages?: readonly string[];
  /** A script of it. @default "build", where there is one */
  readonly build?: string;
  /** What starts it, with variables before it. @default its script "start" */
  readonly start?: string;
  /** What the build made goes to a folder of its own, and is started there: nothing else is left of the example. */
  readonly isMoved?: boolean;
  /** The console is mounted at /admin: it is opened in Chromium, where there is one. */
  readonly hasConsole?: boolean;
  /** Its tools are large: it runs in the nightly tier. @default false */
  readonly isHeavy?: boolean;
  /** `next dev` with these arguments is edited ten times. */
  readonly dev?: string;
}

const bundled = (build: string, file: string): Row => ({
  example: "bundled",
  build,
  start: `node ${file}`,
  isMoved: true,
  isHeavy: true,
});
const next = { example: "next", hasConsole: true, isHeavy: true } as const;
const next15 = ["next@^15", "react@^19", "react-dom@^19"];

export const rows: Readonly<Record<string, Row>> = {
  hono: { example: "hono", hasConsole: true },
  express: { example: "express", hasConsole: true },
  fastify: { example: "fastify" },
  tsx: { example: "tsx" },
  commonjs: { example: "commonjs" },
  "node-test": { example: "node-test" },
  vitest: { example: "vitest" },
  jest: { example: "jest" },
  "esbuild, ESM": bundled("esbuild-esm", "server.mjs"),
  "esbuild, CommonJS": bundled("esbuild-cjs", "server.cjs"),
  rolldown: bundled("rolldown", "server.mjs"),
  "Vite SSR": bundled("vite", "server.mjs"),
  webpack: bundled("webpack", "server.cjs"),
  nest: { example: "nest", isHeavy: true },
  bun: { example: "bun", isHeavy: true },
  deno: { example: "deno", isHeavy: true },
  "next 16": { ...next, dev: "" },
  "next 16, webpack": { ...next, build: "build:webpack", dev: "--webpack" },
  "next 15": { ...next, packages: next15, build: "build:turbopack", dev: "--turbopack" },
  "next 15, webpack": { ...next, packages: next15, dev: "" },
};

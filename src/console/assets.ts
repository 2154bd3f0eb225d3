/** Script and style of the page. In the package `npm run build` puts the texts themselves in this module's place; a checkout bundles `page/` at the first request. */
import { fileURLToPath } from "node:url";

export interface Assets {
  readonly script: string;
  readonly style: string;
}

let made: Promise<Assets> | undefined;

export function assets(): Promise<Assets> {
  made ??= bundled();
  return made;
}

async function bundled(): Promise<Assets> {
  const { build } = await import("esbuild");
  const [script = "", style = ""] = await Promise.all(
    ["page/main.tsx", "page/style.css"].map(async (entry) => {
      const { outputFiles } = await build({
        entryPoints: [fileURLToPath(new URL(entry, import.meta.url))],
        bundle: true,
        write: false,
        minify: true,
        format: "iife",
        target: ["es2022", "chrome110", "firefox115", "safari16"],
        jsx: "automatic",
        jsxImportSource: "preact",
        legalComments: "inline",
        charset: "utf8",
      });
      return outputFiles[0]?.text;
    }),
  );
  return { script, style };
}

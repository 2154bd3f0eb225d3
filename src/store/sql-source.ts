/** The texts of `migrations/`, by file name. In the package `npm run build` puts the texts themselves in this module's place. */
import { readdirSync, readFileSync } from "node:fs";

export interface SqlSource {
  readonly numbered: Readonly<Record<string, string>>;
  readonly functions: Readonly<Record<string, string>>;
}

export function sqlSource(): SqlSource {
  const folder = new URL("../../migrations/", import.meta.url);
  return { numbered: readSql(folder), functions: readSql(new URL("functions/", folder)) };
}

function readSql(folder: URL): Record<string, string> {
  const names = readdirSync(folder).filter((name) => name.endsWith(".sql"));
  return Object.fromEntries(
    names.map((name) => [name.slice(0, -".sql".length), readFileSync(new URL(name, folder), "utf8")]),
  );
}

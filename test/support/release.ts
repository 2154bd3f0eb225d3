/** Another release of this library, made of the checkout: its processes and ours meet in one database. */
import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { minRelease, release } from "../../src/base/release.ts";

export interface OtherRelease extends Disposable {
  /** Where it has a file of the checkout. */
  path(file: string): string;
  /** Runs its command line. */
  cli(...args: readonly string[]): Promise<{ code: number; output: string }>;
}

export interface Changes {
  /** The oldest release that works with what it migrates. @default as now */
  readonly minRelease?: string;
  /** Texts that are replaced, by file. */
  readonly patches?: Readonly<Record<string, readonly (readonly [from: string, to: string])[]>>;
  /** Files that are new, by path. */
  readonly files?: Readonly<Record<string, string>>;
}

const root = resolve(import.meta.dirname, "../..");
const copied = ["src", "migrations", "package.json", "test/crash/orders.ts"];

/** One minor version after the checkout's. */
export const nextVersion = release.replace(/^(\d+)\.(\d+).*$/, (_, major, minor) => `${major}.${Number(minor) + 1}.0`);

export function nextRelease(changes: Changes = {}): OtherRelease {
  const folder = mkdtempSync(join(tmpdir(), "flowledger-release-"));
  const path = (file: string) => join(folder, file);
  symlinkSync(join(root, "node_modules"), path("node_modules"));
  for (const file of copied) cpSync(join(root, file), path(file), { recursive: true });
  const versions = [
    [`release = "${release}"`, `release = "${nextVersion}"`],
    [`minRelease = "${minRelease}"`, `minRelease = "${changes.minRelease ?? minRelease}"`],
  ] as const;
  const patches = { "src/base/release.ts": versions, ...changes.patches };
  for (const [file, texts] of Object.entries(patches))
    for (const [from, to] of texts) {
      const text = readFileSync(path(file), "utf8");
      if (text.split(from).length !== 2) throw new Error(`the text is not found once in ${file}: ${from}`);
      writeFileSync(
        path(file),
        text.replace(from, () => to),
      );
    }
  for (const [file, text] of Object.entries(changes.files ?? {})) writeFileSync(path(file), text);
  return {
    path,
    cli: (...args) =>
      new Promise((done) => {
        execFile(process.execPath, [path("src/cli.ts"), ...args], (error, stdout, stderr) =>
          done({ code: error ? Number(error.code ?? 1) : 0, output: stdout + stderr }),
        );
      }),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true }),
  };
}

/** The SQL of this release, in the order in which a migration runs it. */
import { createHash } from "node:crypto";
import { sqlSource } from "./sql-source.ts";

export interface SqlFile {
  readonly name: string;
  readonly text: string;
  /** SHA-256 of the text. */
  readonly hash: string;
}

export interface SqlFiles {
  /** Tables, triggers, drops and data: each runs once, in this order. */
  readonly numbered: readonly SqlFile[];
  /** Functions and views: all of them run again whenever one has changed. The first needs no table, and runs before those. */
  readonly functions: readonly SqlFile[];
  /** SHA-256 over all function files. */
  readonly functionsHash: string;
}

let known: SqlFiles | undefined;

export function sqlFiles(): SqlFiles {
  return (known ??= inOrder());
}

function inOrder(): SqlFiles {
  const source = sqlSource();
  const functions = filesOf(source.functions);
  return {
    numbered: filesOf(source.numbered),
    functions,
    functionsHash: sha256(functions.map(({ hash }) => hash).join()),
  };
}

function filesOf(texts: Readonly<Record<string, string>>): SqlFile[] {
  return Object.entries(texts)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, text]) => ({ name, text, hash: sha256(text) }));
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

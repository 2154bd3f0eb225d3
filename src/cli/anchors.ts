/** Anchors that are kept in a file, outside of the database that they tell of: one line of JSON each. */
import { appendFile, readFile } from "node:fs/promises";
import { z } from "zod";
import { UsageError } from "../base/errors.ts";
import type { Anchor, KeptAnchor } from "../store/anchors.ts";

const Kept = z.object({ number: z.int().positive(), hash: z.string().regex(/^[0-9a-f]{64}$/) });

/** @throws {UsageError} the anchor stands in the database, and the file cannot be written */
export async function keepAnchor(file: string, { number, at, executions, hash }: Anchor): Promise<void> {
  const line = JSON.stringify({ number, at: new Date(at).toISOString(), executions, hash });
  try {
    await appendFile(file, `${line}\n`);
  } catch (error) {
    throw new UsageError(`anchor ${number} was made, but not kept in ${file} (${String(error)})`, `keep this: ${line}`);
  }
}

/** @throws {UsageError} no file, or not one of ours */
export async function readAnchors(file: string): Promise<KeptAnchor[]> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw new UsageError(
      `${file} cannot be read (${String(error)})`,
      "name the file that `flowledger anchor --file` writes",
    );
  }
  return text.split("\n").flatMap((line, index) => {
    if (line.trim() === "") return [];
    try {
      return [Kept.parse(JSON.parse(line))];
    } catch {
      throw new UsageError(
        `line ${index + 1} of ${file} is no anchor`,
        "name the file that `flowledger anchor --file` writes",
      );
    }
  });
}

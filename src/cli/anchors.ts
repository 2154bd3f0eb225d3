/** Anchors that are kept in a file, outside of the database that they tell of: one line of JSON each. */
import { open, readFile, type FileHandle } from "node:fs/promises";
import { z } from "zod";
import { UsageError } from "../base/errors.ts";
import type { Anchor, KeptAnchor } from "../store/anchors.ts";

const Kept = z.object({ number: z.int().positive(), hash: z.string().regex(/^[0-9a-f]{64}$/) });

/**
 * Opened before there is an anchor: one that is not kept outside is worth little.
 *
 * @throws {UsageError} the file cannot be written
 */
export async function openAnchors(file: string): Promise<FileHandle> {
  try {
    return await open(file, "a");
  } catch (error) {
    throw new UsageError(
      `${file.slice(0, 200)} cannot be written (${String(error).slice(0, 200)})`,
      "name a file that can, or leave it out",
    );
  }
}

/** @throws {UsageError} the anchor stands in the database, and the file cannot be written */
export async function keepAnchor(file: FileHandle, { number, at, executions, hash }: Anchor): Promise<void> {
  const line = JSON.stringify({ number, at: new Date(at).toISOString(), executions, hash });
  try {
    await file.appendFile(`${line}\n`);
  } catch (error) {
    throw new UsageError(
      `anchor ${number} was made, but not kept in its file (${String(error)})`,
      `keep this: ${line}`,
    );
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

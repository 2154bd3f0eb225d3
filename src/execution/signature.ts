/** Who saved an execution: an HMAC with a key that the one who saves and the one who loads share. */
import { createHmac, timingSafeEqual } from "node:crypto";
import { UsageError } from "../base/errors.ts";

/** Of `save()` and `load()`. */
export interface KeyOptions {
  /** Shared by who saves and who loads: at least 16 bytes, a text counting as UTF-8. With it a load takes only what was saved with it. @default none */
  key?: string | Uint8Array;
}

/** @param digest of the save, which it signs */
export function sign(digest: string, key: string | Uint8Array): string {
  return createHmac("sha256", bytesOf(key)).update(`flowledger.execution ${digest}`).digest("hex");
}

/** @throws {UsageError} nobody who has the key signed it */
export function requireSigned(digest: string, signature: string | undefined, key: string | Uint8Array): void {
  if (signature === undefined)
    throw new UsageError("the saved execution is not signed", "save it with the same key, or load it without one");
  const [given, wanted] = [Buffer.from(signature), Buffer.from(sign(digest, key))];
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted))
    throw new UsageError(
      "the saved execution was signed with another key, or changed since",
      "load it with the key that it was saved with",
    );
}

/** @throws {UsageError} */
export function requireKey({ key }: KeyOptions): void {
  if (key !== undefined) bytesOf(key);
}

function bytesOf(key: string | Uint8Array): Uint8Array {
  const bytes = typeof key === "string" ? Buffer.from(key) : key;
  if (bytes instanceof Uint8Array && bytes.length >= 16) return bytes;
  throw new UsageError("key must be a text or a Uint8Array of at least 16 bytes", "make one: randomBytes(32)");
}

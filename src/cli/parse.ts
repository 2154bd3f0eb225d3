/** Arguments and options, read once. */
import { InvalidArgumentError } from "commander";
import { isoMoment } from "../base/duration.ts";
import { PayloadError } from "../base/errors.ts";
import { isObject, toJson, type Json, type JsonObject } from "../base/json.ts";
import { parseCursor } from "../execution/stream.ts";

export function parseJson(text: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new InvalidArgumentError("It is not JSON: quote it for the shell, and a text twice, like '\"text\"'.");
  }
  try {
    // Refuses a number like 1e400, which JSON would turn into null.
    return toJson(value, "it");
  } catch (error) {
    if (error instanceof PayloadError) throw new InvalidArgumentError(`${error.message}.`);
    throw error;
  }
}

export function parseObject(text: string): JsonObject {
  const value = parseJson(text);
  if (isObject(value)) return value;
  throw new InvalidArgumentError("It is not a JSON object.");
}

export function parseDate(text: string): Date {
  const date = isoMoment(text);
  if (date) return date;
  throw new InvalidArgumentError("It is not a date: write 2026-01-31, or 2026-01-31T12:00:00Z.");
}

export function parsePlace(text: string): string {
  try {
    parseCursor(text);
  } catch {
    throw new InvalidArgumentError("It is not a cursor: use 0, or what Ctrl-C printed.");
  }
  return text;
}

export function parseWhole(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new InvalidArgumentError("It is not a whole number.");
}

/** Of a page. */
export function parseLimit(text: string): number {
  if (/^[1-9]\d{0,3}$/.test(text) && Number(text) <= 1000) return Number(text);
  throw new InvalidArgumentError("It must be an integer from 1 to 1000.");
}

/** A point of a ledger. */
export function parsePoint(text: string): number | Date {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  const date = isoMoment(text);
  if (date) return date;
  throw new InvalidArgumentError("It is neither a seq from 1 on nor a time: write 7, or 2026-01-31T12:00:00Z.");
}

export function parseCount(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new InvalidArgumentError("It is not a whole number from 1 on.");
}

export function parsePort(text: string): number {
  if (/^\d{1,5}$/.test(text) && Number(text) <= 65_535) return Number(text);
  throw new InvalidArgumentError("It is not a port: use a whole number from 0 to 65535.");
}

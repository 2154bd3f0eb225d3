/** The schema of JSON. Apart from `json.ts`: what only makes values loads no zod. */
import { z } from "zod";
import type { Json } from "./json.ts";

/** For what is JSON by where it comes from (jsonb, a parsed body): only its presence is checked. */
export const JsonValue = z.custom<Json>((value) => value !== undefined);

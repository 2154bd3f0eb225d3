/** The JSON Schema of a contract's input, for entry points that do not have its code: it refuses nothing that the contract accepts. */
import { z } from "zod";

type Made = Parameters<NonNullable<z.core.ToJSONSchemaParams["override"]>>[0];

/** What a check says of a value; one that changes the value first is about another. */
const checked = [
  "minLength",
  "maxLength",
  "pattern",
  "format",
  "contentEncoding",
  "minimum",
  "maximum",
  "exclusiveMinimum",
  "exclusiveMaximum",
  "multipleOf",
  "minItems",
  "maxItems",
] as const;

export function inputSchema(part: z.ZodType): object {
  return z.toJSONSchema(part, { io: "input", unrepresentable: "any", override: loosen });
}

/** JSON Schema has no word for what zod does to a value before it looks. */
function loosen({ zodSchema, jsonSchema }: Made): void {
  const { def } = zodSchema._zod;
  if (takesOthers(def)) {
    for (const key of Object.keys(jsonSchema)) Reflect.deleteProperty(jsonSchema, key);
    return;
  }
  const changes = def.checks?.some(({ _zod: { def: check } }) => check.check === "overwrite") === true;
  if (changes) for (const key of checked) delete jsonSchema[key];
  // A JSON Schema pattern has no flags, and a URL is what JavaScript accepts.
  const isFlagged = flaggedPattern(zodSchema) !== null;
  if (isFlagged) delete jsonSchema.pattern;
  if (jsonSchema.format === "uri") delete jsonSchema.format;
  // `allOf` of a string holds several patterns.
  if ((changes || isFlagged) && def.type === "string") delete jsonSchema.allOf;
  if (def.type !== "object" || !jsonSchema.required) return;
  jsonSchema.required = jsonSchema.required.filter((key) => !takesNothing(def.shape[key]));
}

/** A pattern whose flags say what it fits: JSON Schema has none of them. */
export function flaggedPattern(schema: z.core.$ZodType): RegExp | null {
  const { def } = schema._zod;
  for (const part of [def, ...(def.checks ?? []).map((check) => check._zod.def)])
    if ("pattern" in part && part.pattern instanceof RegExp && /[ims]/.test(part.pattern.flags)) return part.pattern;
  return null;
}

/** Coercions, `preprocess` and `catch`: what they take is nowhere said. */
function takesOthers(def: Made["zodSchema"]["_zod"]["def"]): boolean {
  if ("coerce" in def && def.coerce === true) return true;
  return def.type === "catch" || (def.type === "pipe" && def.in._zod.def.type === "transform");
}

/** Zod asks what is missing as `undefined`. */
function takesNothing(schema: z.core.$ZodType | undefined): boolean {
  if (schema === undefined) return false;
  try {
    return z.safeParse(schema, undefined).success;
  } catch {
    return true;
  }
}

/** What an editor shows of the public names: every one has a doc comment, and every type in a signature is exported. */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { promisify } from "node:util";
import { API, SignatureKind, SymbolFlags, type Project, type Symbol, type Type } from "typescript/unstable/sync";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";

const root = resolve(import.meta.dirname, "../..");
const Package = z.object({ exports: z.record(z.string(), z.union([z.string(), z.object({}).loose()])) });
const { exports } = Package.parse(JSON.parse(readFileSync(resolve(root, "package.json"), "utf8")));
/** "index", "defer" and so on. */
const entries = Object.keys(exports)
  .filter((door) => !door.endsWith(".json"))
  .map((door) => (door === "." ? "index" : basename(door)));

const api = new API({ cwd: root });
let project: Project;
/** What users can import, by its name where it is declared: doors give some names to the same thing. */
const exported = new Map<Symbol["id"], { readonly name: string; readonly symbol: Symbol }>();

beforeAll(() => {
  const [opened] = api.updateSnapshot({ openProjects: [resolve(root, "tsconfig.json")] }).getProjects();
  if (!opened) throw new Error("tsconfig.json opens no project");
  project = opened;
  for (const entry of entries) for (const one of exportsOf(entry)) exported.set(one.symbol.id, one);
});
afterAll(() => api.close());

test("every public name has a doc comment, and every option and method of it", { timeout: 60_000 }, () => {
  const missing = [...exported.values()].flatMap(({ name, symbol }) => [
    ...(isDocumented(symbol) ? [] : [name]),
    ...membersOf(symbol)
      .filter((member) => isOption.test(name) || (isCalled(member) && !isForeign.test(name)))
      .flatMap((member) => (isDocumented(member) ? [] : [`${name}.${member.name}`])),
  ]);

  expect(exported.size).toBeGreaterThan(150);
  expect(missing).toEqual([]);
});

/** Transactions of other libraries, as much of them as tells them apart. */
const isForeign = /^((Drizzle|Knex|Kysely|MikroOrm|Prisma)Transaction|PgClient)$/;
/** What a record tells is said by its names and types; what one gives is not. */
const isOption = /(Options|Settings|Filters?)$/;

test("every type that a public function takes or gives is exported", { timeout: 60_000 }, () => {
  const hidden = [...exported.values()].flatMap(({ name, symbol }) =>
    [symbol, ...membersOf(symbol)].flatMap((one) =>
      namedIn(typeOf(one)).map((type) => `${type.name}, of ${one === symbol ? name : `${name}.${one.name}`}`),
    ),
  );

  expect([...new Set(hidden)].filter((one) => !isComputed.test(one)).toSorted()).toEqual([]);
});

/** What the compiler computes from a contract or a function, and nobody writes; the clock of our own tests; what is handed on whole. */
const isComputed =
  / of (Graph|TraceApi)\.|^(EmitPayload|EntryOf|All|Scheduled|Storable(Arguments|Branches|Contract)|ResourceOf|Output|OutputOf|Parsed|StateAt|StateItem|StatePath|StateWrite|StreamInput|TransactionOf|Silent|Streaming|Answered|Timers), of /;

test("what JSON cannot hold is an error that names it, and what to use", { timeout: 60_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), "flowledger-refused-"));
  await symlink(resolve(root, "node_modules"), join(folder, "node_modules"));
  await writeFile(
    join(folder, "app.ts"),
    `import { defineFlow } from ${JSON.stringify(resolve(root, "src/index.ts"))};
    import { z } from "zod";
    const flow = defineFlow("f", { resources: { db: z.custom<{ query(): void }>() } });
    flow.to("a", () => new Date());
    flow.to("b", async () => ({ lines: [{ count: 1n }] }));
    flow.to("c", (ctx) => ctx.setState("by", { who: new Map<string, string>() }));
    defineFlow("g", { input: z.object({ at: z.date() }) });
    flow.to("d", (ctx) => ctx.requireResource("bd").query());
    flow.endForEach();
    flow.toSubFlow(defineFlow("h", { input: z.object({ n: z.number() }) }), { capture: { "input.m": "value" } });
    `,
  );
  await writeFile(join(folder, "package.json"), '{ "type": "module" }');
  const config = {
    extends: resolve(root, "tsconfig.json"),
    compilerOptions: { rewriteRelativeImportExtensions: false, allowImportingTsExtensions: true },
    include: [join(folder, "app.ts")],
  };
  await writeFile(join(folder, "tsconfig.json"), JSON.stringify(config));
  const tsc = resolve(root, "node_modules/.bin/tsc");

  const said = await promisify(execFile)(tsc, ["-p", folder, "--pretty", "false", "--singleThreaded"]).then(
    () => "",
    ({ stdout }: { stdout: string }) => stdout,
  );
  await rm(folder, { recursive: true });

  const errors = said.split(/^(?=\S*app\.ts)/m).filter((error) => error.includes("app.ts("));
  expect(errors).toEqual([
    expect.stringMatching(/app\.ts\(4,.*Date.*NotJson<"a Date", "date\.toISOString\(\)">/s),
    expect.stringMatching(/app\.ts\(5,.*'lines'.*'count'.*bigint.*NotJson<"a bigint", "a text">/s),
    expect.stringMatching(/app\.ts\(6,.*Map<string, string>.*NotJson<"a Map", "Object\.fromEntries\(map\)">/s),
    expect.stringMatching(/app\.ts\(7,.*it gives what JSON cannot hold.*NotStorable<\{ at: Date; \}>/s),
    expect.stringMatching(/app\.ts\(8,.*'"bd"' is not assignable to parameter of type '"db"'/s),
    expect.stringMatching(/app\.ts\(9,.*InForEach/s),
    expect.stringMatching(/app\.ts\(10,.*NoSuchPath<"input\.m">/s),
  ]);
});

function exportsOf(entry: string): { name: string; symbol: Symbol }[] {
  const { checker, program } = project;
  const file = program.getSourceFile(resolve(root, `src/${entry}.ts`));
  const module = file && checker.getSymbolAtLocation(file);
  if (!module) throw new Error(`src/${entry}.ts is no module`);
  const prefix = entry === "index" ? "" : `${entry}/`;
  return checker.getExportsOfModule(module).map((one) => ({
    name: prefix + one.name,
    symbol: one.flags & SymbolFlags.Alias ? checker.getAliasedSymbol(one) : one,
  }));
}

function isDocumented(symbol: Symbol): boolean {
  return symbol.getDocumentationComment(project.checker) !== "" || symbol.getJsDocTags(project.checker).length > 0;
}

/** Of a class, an interface or an object type; those that come from elsewhere and private ones are not. */
function membersOf(symbol: Symbol): Symbol[] {
  const { checker } = project;
  if (!(symbol.flags & named)) return [];
  const type = checker.getDeclaredTypeOfSymbol(symbol);
  if (!type.isObjectType() && !type.isIntersectionType()) return [];
  return checker.getPropertiesOfType(type).filter((member) => /^(?!__)\w+$/.test(member.name) && isOurs(member));
}

function isCalled(member: Symbol): boolean {
  const type = project.checker.getTypeOfSymbol(member);
  return type !== undefined && project.checker.getSignaturesOfType(type, SignatureKind.Call).length > 0;
}

function isOurs({ declarations }: Symbol): boolean {
  return declarations.some(({ path }) => path.toLowerCase().startsWith(`${root}/src/`.toLowerCase()));
}

const named = SymbolFlags.Class | SymbolFlags.Interface | SymbolFlags.TypeAlias;

function typeOf(symbol: Symbol): Type | undefined {
  return symbol.flags & named ? undefined : project.checker.getTypeOfSymbol(symbol);
}

/** Names of ours in a signature, or in the type of a property, that nobody can import. */
function namedIn(type: Type | undefined, depth = 0): Symbol[] {
  const { checker } = project;
  if (!type || depth > 4) return [];
  const name = type.getAliasSymbol() ?? type.getSymbol();
  const inner = type.getAliasTypeArguments().flatMap((one) => namedIn(one, depth + 1));
  if (name && isOurs(name) && name.flags & named) return exported.has(name.id) ? inner : [name, ...inner];
  if (type.isUnionType() || type.isIntersectionType())
    return [...inner, ...type.getTypes().flatMap((one) => namedIn(one, depth + 1))];
  const own = type.isTypeReference() ? checker.getTypeArguments(type).flatMap((one) => namedIn(one, depth + 1)) : [];
  const signatures = checker
    .getSignaturesOfType(type, SignatureKind.Call)
    .flatMap((signature) => [
      ...signature.getParameters().flatMap((one) => namedIn(checker.getTypeOfSymbol(one), depth + 1)),
      ...namedIn(checker.getReturnTypeOfSignature(signature), depth + 1),
    ]);
  return [...inner, ...own, ...signatures];
}

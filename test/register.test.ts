/** The ids in the tests' names and comments stand in `test/README.md`, and each of them has a test. */
import { globSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";

const root = resolve(import.meta.dirname, "..");
const own = "test/register.test.ts";

/** Files by path; not this one, whose examples are none. */
function read(pattern: string): Map<string, string> {
  const files = globSync(pattern, { cwd: root, exclude: ["**/node_modules"] }).filter((file) => file !== own);
  return new Map(files.map((file) => [file, readFileSync(join(root, file), "utf8")]));
}

const registered = /^- ([A-Z0-9-]+): .+\.$/gm;
const used = /\b(?:(?:TF|LI|DF)-[A-Z]{3}-\d\d|AMB-\d\d|[FV]\d{1,2})\b/g;
const invariant = /["'](I\d{1,2})(?: liveness)?["']/g;

/** What a pattern finds, each once, sorted. */
function found(pattern: RegExp, texts: Iterable<string>): string[] {
  const all = [...texts].flatMap((text) => [...text.matchAll(pattern)].map(([whole, part]) => part ?? whole));
  return [...new Set(all)].toSorted();
}

test("each id that a test uses is in test/README.md, once, and each there is used by a test", () => {
  const register = readFileSync(join(root, "test/README.md"), "utf8");
  const listed = [...register.matchAll(registered)].map(([, id = ""]) => id);

  expect(listed.length).toBeGreaterThan(250);
  expect(listed).toEqual([...new Set(listed)]);
  expect(found(used, read("test/**/*.ts").values())).toEqual(listed.toSorted());
});

test("each invariant that verify or a test names is in the guarantees, and each there is checked", () => {
  const guarantees = readFileSync(join(root, "docs/guarantees.md"), "utf8");
  const [, section = ""] = /^## The invariants$([\s\S]*?)^## /m.exec(guarantees) ?? [];
  const listed = [...section.matchAll(registered)].map(([, id = ""]) => id);

  expect(listed.length).toBeGreaterThan(10);
  const sources = [...read("src/store/*.ts").values(), ...read("test/**/*.ts").values()];
  expect(found(invariant, sources)).toEqual(listed.toSorted());
});

/** Names of pages that are not here; what they say stands where it is needed. */
const absent =
  /\b(?:RELIABILITY|CONFORMANCE|ARCHITECTURE|DECISIONS|PROFILE|SPECS|HOUSE|STYLE\.md|API\.md|TESTING\.md)\b/;

test("no code names a document or an id that is not in the repository", () => {
  const code = [...read("{src,bench,examples}/**/*.ts"), ...read("migrations/**/*.sql")];
  const wrong = code.filter(([, text]) => absent.test(text) || found(used, [text]).some((id) => id !== "V8"));

  expect(code.length).toBeGreaterThan(90);
  expect(wrong.map(([file]) => file)).toEqual([]);
  expect([...read("test/**/*.ts")].filter(([, text]) => absent.test(text)).map(([file]) => file)).toEqual([]);
});

describe("the register sees", () => {
  test.each([
    ["an id in a name", 'test("TF-PAU-06: the answer …", () => {});', ["TF-PAU-06"]],
    ["several", "// F38, AMB-22 and LI-HND-12, twice LI-HND-12", ["AMB-22", "F38", "LI-HND-12"]],
    ["none in a code of ours", '"FL008" 0xF1 TF-IDF UTF-8 I3', []],
  ])("%s", (_, text, ids) => {
    expect(found(used, [text])).toEqual(ids);
  });

  test("a page that is not there", () => {
    expect("breaks on odd messages (RELIABILITY V4)").toMatch(absent);
    expect("PostgreSQL's reliability, the architecture of …").not.toMatch(absent);
  });
});

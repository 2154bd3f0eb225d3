/** The documents lead somewhere: every relative link to a file that is there, every anchor to a heading; and `llms.txt` lists every page. */
import { existsSync, globSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { llmsText } from "../../site/llms.ts";

const root = resolve(import.meta.dirname, "../..");
const documents = globSync("**/*.md", {
  cwd: root,
  exclude: ["**/node_modules/**", "dist/**", "site/pages/**"],
}).toSorted();

describe.each(documents)("%s", (document) => {
  test("its links lead somewhere", () => {
    const broken = linksOf(document).filter((link) => !leadsSomewhere(document, link));

    expect(broken).toEqual([]);
  });
});

test.each([
  ["docs/guide.md", "nowhere.md"],
  ["docs/guide.md", "#no-such-heading"],
  ["README.md", "docs/guide.md#no-such-heading"],
])("a link of %s to %s is found to be broken", (document, link) => {
  expect(leadsSomewhere(document, link)).toBe(false);
});

test("llms.txt is what `node site/llms.ts` writes", () => {
  expect(readFileSync(join(root, "llms.txt"), "utf8")).toBe(llmsText(root));
});

/** Relative ones, outside of code. */
function linksOf(document: string): string[] {
  const text = withoutCode(readFileSync(join(root, document), "utf8"));
  const links = [...text.matchAll(/\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)/g)].map(([, link = ""]) => link);
  return links.filter((link) => !/^[a-z][a-z+.-]*:/i.test(link));
}

function leadsSomewhere(document: string, link: string): boolean {
  const [path = "", anchor] = link.split("#");
  const target = path === "" ? join(root, document) : resolve(root, dirname(document), decodeURIComponent(path));
  if (relative(root, target).startsWith("..") || !existsSync(target)) return false;
  if (anchor === undefined) return true;
  return statSync(target).isFile() && target.endsWith(".md") && anchorsOf(target).includes(decodeURIComponent(anchor));
}

/** As GitHub makes them of headings. */
function anchorsOf(file: string): string[] {
  const seen = new Map<string, number>();
  return [...withoutCode(readFileSync(file, "utf8"), "```").matchAll(/^#{1,6} (.*)$/gm)].map(([, heading = ""]) => {
    const slug = heading
      .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1")
      .trim()
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
      .replaceAll(/\s/g, "-");
    const count = seen.get(slug) ?? 0;
    seen.set(slug, count + 1);
    return count === 0 ? slug : `${slug}-${count}`;
  });
}

function withoutCode(text: string, only?: "```"): string {
  const prose = text.replaceAll(/^(`{3,}).*?^\1/gms, "");
  return only ? prose : prose.replaceAll(/`[^`\n]*`/g, "");
}

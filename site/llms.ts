/** Writes `llms.txt`: what flowledger is and where each page is, for programs that read documents. `node site/llms.ts`. */
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

/** Pages in the order of reading; each has a section of the README's list or of its own. */
export const pages: readonly { readonly title: string; readonly files: readonly string[] }[] = [
  { title: "Start", files: ["README.md", "docs/concepts.md", "docs/guide.md", "docs/recipes.md"] },
  { title: "Build", files: ["docs/testing.md", "docs/ai.md", "docs/hosts.md", "docs/console.md", "docs/audit.md"] },
  {
    title: "Run",
    files: ["docs/deployment.md", "docs/operations.md", "docs/observability.md", "docs/upgrade.md", "docs/security.md"],
  },
  {
    title: "Look up",
    files: [
      "docs/errors.md",
      "docs/guarantees.md",
      "docs/comparison.md",
      "docs/differences.md",
      "docs/migrating-from-defer.md",
      "CHANGELOG.md",
    ],
  },
];

/** The title of a page and its first sentence. */
export function headOf(root: string, file: string): { title: string; sentence: string } {
  const text = readFileSync(join(root, file), "utf8");
  const [, title = file] = /^# (.*)$/m.exec(text) ?? [];
  const [, paragraph = ""] = /^# .*\n+((?:(?![#|>-]|```)[^\n]+\n?)+)/m.exec(text) ?? [];
  const plain = paragraph.replaceAll("\n", " ").replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1");
  const [sentence = ""] = /^.*?[.:](?=\s|$)/.exec(plain) ?? [];
  return { title, sentence: sentence.replace(/:$/, ".") };
}

export function llmsText(root: string): string {
  const { sentence } = headOf(root, "README.md");
  const sections = pages.map(({ title, files }) => {
    const lines = files.map((file) => {
      const head = headOf(root, file);
      return `- [${head.title}](${file}): ${head.sentence}`;
    });
    return `## ${title}\n\n${lines.join("\n")}`;
  });
  return `# flowledger\n\n> ${sentence}\n\n${sections.join("\n\n")}\n`;
}

if (import.meta.main) {
  const root = resolve(import.meta.dirname, "..");
  writeFileSync(join(root, "llms.txt"), llmsText(root));
}

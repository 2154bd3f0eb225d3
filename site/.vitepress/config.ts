/** The site's frame; its pages are the repository's documents. */
import { resolve } from "node:path";
import { defineConfig } from "vitepress";
import { headOf, pages } from "../llms.ts";

const root = resolve(import.meta.dirname, "../..");
const linkOf = (file: string) => (file === "README.md" ? "/" : `/${file.replace(/\.md$/, "")}`);

export default defineConfig({
  title: "flowledger",
  description: headOf(root, "README.md").sentence,
  srcDir: "pages",
  outDir: "dist",
  cleanUrls: true,
  rewrites: { "README.md": "index.md" },
  // To what is in the repository and no page here: `test/doors/links.test.ts` looks whether it is there.
  ignoreDeadLinks: [/\/(examples|test|bench|src)\//, /\/LICENSE$/, /\.(json|yml)$/],
  themeConfig: {
    search: { provider: "local" },
    outline: [2, 3],
    nav: [
      { text: "Guide", link: "/docs/guide" },
      { text: "Recipes", link: "/docs/recipes" },
      { text: "API", link: "/api/" },
    ],
    sidebar: [
      ...pages.map(({ title, files }) => ({
        text: title,
        items: files.map((file) => ({ text: headOf(root, file).title.replaceAll("`", ""), link: linkOf(file) })),
      })),
      { text: "Reference", items: [{ text: "API", link: "/api/" }] },
    ],
  },
});

/** The pure tests, for `npm run mutate`: no database, and none that reads the source's text, which the mutants change. */
import { defineConfig } from "vitest/config";
import { projects } from "../tiers/projects.ts";

const ofTheText = ["test/register.test.ts", "test/tree.test.ts", "test/base/words.test.ts", "test/tiers/**"];

export default defineConfig({ test: { include: [...projects.pure], exclude: ofTheText, isolate: false } });

/** How drizzle-kit turns the tables of `src/store/schema.ts` into migrations. */
import { defineConfig } from "drizzle-kit";

export default defineConfig({
  dialect: "postgresql",
  schema: "./src/store/schema.ts",
  out: "./migrations",
  schemaFilter: ["flowledger"],
});

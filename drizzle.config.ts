/** How drizzle-kit turns `src/database/schema.ts` into migrations. */
import { defineConfig } from "drizzle-kit";

export default defineConfig({
  dialect: "postgresql",
  schema: "./src/database/schema.ts",
  out: "./migrations",
  schemaFilter: ["flowledger"],
});

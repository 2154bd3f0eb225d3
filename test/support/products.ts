/** Cross products whose cells mostly show one thing. The only reader of `PRODUCTS`: a part of each in `npm test`, `whole` in `npm run test:all`. */
const wanted = process.env["PRODUCTS"] ?? "part";
if (wanted !== "part" && wanted !== "whole") throw new Error(`PRODUCTS must be part or whole, got "${wanted}"`);

/** For a product that has to be left out of a part altogether, as another test covers each row and column. */
export const isWhole = wanted === "whole";

/**
 * What a row is tried with: every third column, or both where there are two. Rows that are numbered take another third each in turn,
 * so that three of them have every column.
 *
 * @param row its number, or its name, which chooses the third
 */
export function cells<T>(row: number | string, columns: readonly T[]): readonly T[] {
  const offset = typeof row === "number" ? row : Array.from(row).reduce((sum, char) => sum + char.charCodeAt(0), 0);
  return isWhole || columns.length < 3 ? columns : columns.filter((_, column) => (column + offset) % 3 === 0);
}

/** How often a property is tried. The only reader of `FUZZ_RUNS`: 3,000 in `npm test`, 100,000 in `npm run test:all`. */
const wanted = process.env["FUZZ_RUNS"] ?? "3000";

/** @param share of the runs, for a property whose runs cost more @default 1 */
export function fuzzRuns(share = 1): { numRuns: number } {
  if (!/^[1-9]\d*$/.test(wanted)) throw new Error(`FUZZ_RUNS must be a whole number from 1, got "${wanted}"`);
  return { numRuns: Math.max(1, Math.round(Number(wanted) * share)) };
}

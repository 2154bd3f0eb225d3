/** The release of this library, as package.json has it; a test compares them. */
export const release = "0.1.0";

/** The oldest release whose workers and clients work with a database that this one has migrated. */
export const minRelease = "0.1.0";

/** Negative when `a` is older than `b`. A pre-release is older than its release. */
export function compareReleases(a: string, b: string): number {
  const [left, right] = [parts(a), parts(b)];
  for (let index = 0; index < 3; index++) {
    const difference = (left.numbers[index] ?? 0) - (right.numbers[index] ?? 0);
    if (difference !== 0) return difference;
  }
  if (left.pre === right.pre) return 0;
  if (left.pre === "") return 1;
  if (right.pre === "") return -1;
  return left.pre.localeCompare(right.pre, "en", { numeric: true });
}

function parts(text: string): { readonly numbers: number[]; readonly pre: string } {
  const [numbers = "", ...pre] = text.split("-");
  return { numbers: numbers.split(".").map(Number), pre: pre.join("-") };
}

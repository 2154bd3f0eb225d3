/** How much of what the tests reach they see. */

/** In 100 of what a test runs through, over all files. */
const enough = 90;

interface Mutated {
  readonly mutants: readonly { readonly status: string }[];
}

/** A change that a test fails on, or never ends with, is seen. What no pure test runs is a matter of the tests with a database. */
export function tableOf(files: Readonly<Record<string, Mutated>>): {
  readonly text: string;
  readonly isEnough: boolean;
} {
  const rows = Object.entries(files).map(([file, { mutants }]) => ({ file, ...scoreOf(mutants) }));
  const all = { file: "all", ...scoreOf(Object.values(files).flatMap(({ mutants }) => mutants)) };
  const width = Math.max(...[...rows, all].map(({ file }) => file.length));
  const line = ({ file, killed, timedOut, survived, notRun, share }: typeof all) =>
    `${file.padEnd(width)}  ${share.toFixed(1).padStart(5)} %  ${killed} killed, ${timedOut} endless, ${survived} survived, ${notRun} run by no pure test`;
  return { text: [...rows, all].map(line).join("\n"), isEnough: all.share >= enough };
}

function scoreOf(mutants: Mutated["mutants"]) {
  const count = (status: string) => mutants.filter((mutant) => mutant.status === status).length;
  const [killed, timedOut, survived] = [count("Killed"), count("Timeout"), count("Survived")];
  const seen = killed + timedOut;
  const share = seen + survived === 0 ? 100 : (100 * seen) / (seen + survived);
  return { killed, timedOut, survived, notRun: count("NoCoverage"), share };
}

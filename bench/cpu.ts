/** The CPU time of a Postgres: user and system, of all its processes, those that have ended too. Linux says it. */
import { readdir, readFile } from "node:fs/promises";

/** Ticks of `/proc` per second: Linux shows 100 to programs, whatever the kernel has. */
const ticksPerSecond = 100;

/** In ms. Null where it cannot be known. */
export async function cpuOfServer(postmaster: number | null): Promise<number | null> {
  if (postmaster === null || process.platform !== "linux") return null;
  const folders = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const all = await Promise.all(folders.map(readStat));
  let ticks = 0;
  for (const stat of all) {
    if (stat?.pid === postmaster) ticks += stat.own + stat.ofDead;
    else if (stat?.parent === postmaster) ticks += stat.own;
  }
  return (ticks / ticksPerSecond) * 1000;
}

/** Nothing of a process that has ended meanwhile. */
async function readStat(pid: string) {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => null);
  // The name, in parentheses, may have blanks in it.
  const fields = text?.slice(text.lastIndexOf(")") + 2).split(" ");
  if (!fields) return null;
  const at = (place: number) => Number(fields[place]);
  return { pid: Number(pid), parent: at(1), own: at(11) + at(12), ofDead: at(13) + at(14) };
}

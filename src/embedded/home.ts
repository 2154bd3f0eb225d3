/** The folder of an embedded server: its data, its password, and whom it belongs to. */
import * as fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { UsageError } from "../base/errors.ts";
import { isOpenToAll, isRoot, isErrno } from "./files.ts";

export interface Home {
  /** What the caller named, or a temporary folder. */
  readonly root: string;
  readonly isTemporary: boolean;
  readonly data: string;
  readonly password: string;
  /** Whom the server runs as, when that is not us: Postgres refuses root. */
  readonly user: { uid: number; gid: number } | undefined;
}

/** `nobody` exists everywhere, so no user has to be made. */
const NOBODY = process.platform === "darwin" ? { uid: 4294967294, gid: 4294967294 } : { uid: 65534, gid: 65534 };

/** Of Linux, in memory: a database is hundreds of files, which some disks take half a second to make. */
export const memoryFolder = "/dev/shm";
const memoryNeeded = 2 * 2 ** 30;
/** Keeps what the log of changes takes of it small. */
export const memorySettings = ["-c", "max_wal_size=256MB"];

/** For data that may be lost. Containers often have 64 MiB of that memory. */
export async function fastFolder(): Promise<string> {
  if (process.platform !== "linux" || process.env["TMPDIR"]) return tmpdir();
  try {
    await fs.access(memoryFolder, fs.constants.W_OK);
    const { bavail, bsize } = await fs.statfs(memoryFolder);
    return bavail * bsize >= memoryNeeded ? memoryFolder : tmpdir();
  } catch {
    return tmpdir();
  }
}

/** @param temporary where a folder is made that is gone at the end, without a `dataDir` */
export async function openHome(dataDir: string | null, temporary: string): Promise<Home> {
  const isTemporary = dataDir === null;
  const parent = isTemporary ? temporary : dirname(resolve(dataDir));
  await fs.mkdir(parent, { recursive: true });
  const existing = isTemporary ? undefined : await ownerOf(join(resolve(dataDir), "data"));
  const user = isRoot() ? (existing ?? NOBODY) : undefined;
  if (user && !(await isOpenToAll(parent, 0o001))) {
    const problem = `${parent} is out of reach for user ${user.uid}, which Postgres runs as when started by root`;
    throw new UsageError(problem, "choose a dataDir outside root's home, or do not run as root", { parent });
  }
  const root = isTemporary ? await fs.mkdtemp(join(parent, "flowledger-")) : resolve(dataDir);
  if (existing === undefined) {
    await fs.mkdir(root, { recursive: true });
    await refuseForeignFolder(root);
    if (user) await fs.chown(root, user.uid, user.gid);
    await fs.chmod(root, 0o700);
    // The data and its password belong in no repository.
    if (!isTemporary) await fs.writeFile(join(root, ignored), "*\n");
  }
  return { root, isTemporary, data: join(root, "data"), password: join(root, "password"), user };
}

const ignored = ".gitignore";

/** A folder with other things in it is not ours to take over. */
async function refuseForeignFolder(root: string): Promise<void> {
  const others = (await fs.readdir(root)).filter((name) => ![ignored, "password", "data.part"].includes(name));
  if (others.length === 0) return;
  throw new UsageError(`${root} is neither empty nor a data directory made by flowledger`, "choose another dataDir", {
    dataDir: root,
  });
}

/** Nothing when the path is not there. */
async function ownerOf(path: string): Promise<{ uid: number; gid: number } | undefined> {
  try {
    const { uid, gid } = await fs.stat(path);
    return { uid, gid };
  } catch (error) {
    if (isErrno(error, "ENOENT")) return undefined;
    throw error;
  }
}

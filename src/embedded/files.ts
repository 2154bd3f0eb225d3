/** Folders and permissions, as the embedded server needs them. */
import * as fs from "node:fs/promises";
import { dirname } from "node:path";

/** Whether everybody has these permissions on the folder and all above it. */
export async function isOpenToAll(folder: string, permissions: number): Promise<boolean> {
  for (let path = folder; ; path = dirname(path)) {
    const { mode } = await fs.stat(path);
    if ((mode & permissions) !== permissions) return false;
    if (path === dirname(path)) return true;
  }
}

export async function removeFolder(path: string): Promise<void> {
  await fs.rm(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}

export function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

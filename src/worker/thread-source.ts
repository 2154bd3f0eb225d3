/** Where the heartbeat's thread starts. In the package `npm run build` puts its code, bundled, in this module's place. */

/** A file, or the code itself as a script. */
export function threadSource(): URL | string {
  return new URL("heartbeat-thread.ts", import.meta.url);
}

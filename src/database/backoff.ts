/** Waits between tries to connect. Apart from `connection.ts`, because the heartbeat's thread loads it and little else. */

/** Seconds to the next try. The driver's own waits grow to twenty seconds, long after Postgres is back. */
export function reconnectDelay(attempt: number): number {
  return Math.min(0.5, 0.02 * 2 ** attempt) * (0.5 + Math.random() / 2);
}

/** The worker lives in the server's process. Written so, a bundle for the edge leaves it out. */
export async function register() {
  if (process.env.NEXT_RUNTIME === "nodejs") {
    const { serve } = await import("./lib/worker");
    await serve();
  }
}

/** The worker lives in the server's process; it drains when the host ends that. */
export async function register() {
  if (process.env.NEXT_RUNTIME !== "nodejs") return;
  const { orchestrator } = await import("./lib/order");
  await orchestrator.migrate();
  await orchestrator.startWorker();
}

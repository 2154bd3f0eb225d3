/** The same route for the app router of Next.js: `app/stories/[id]/stream/route.ts`. */
import { createOrchestrator, cursorOf, toSSE } from "../../src/index.ts";

export const runtime = "nodejs";
export const dynamic = "force-dynamic";

// It reads; the worker is a process of its own.
const orchestrator = createOrchestrator();

export async function GET(request: Request, { params }: { params: Promise<{ id: string }> }): Promise<Response> {
  const { id } = await params;
  const from = cursorOf(request);
  const execution = await orchestrator.getExecution(id);
  return toSSE(execution.streamItems({ timeout: null, from }), { request });
}

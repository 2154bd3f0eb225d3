/** The console, behind the application's own login: here a cookie that ADMIN_SESSION names. */
import { createConsole } from "flowledger/console";
import { orchestrator } from "../../../lib/order";

const admin = createConsole({
  orchestrator,
  authorize(request) {
    const session = process.env.ADMIN_SESSION ?? "";
    const isAnn = session !== "" && (request.headers.get("cookie") ?? "").includes(`session=${session}`);
    return isAnn ? { actor: "ann@acme.example", role: "operator" } : null;
  },
});

export const dynamic = "force-dynamic";
export const GET = (request: Request) => admin.fetch(request);
export const POST = (request: Request) => admin.fetch(request);

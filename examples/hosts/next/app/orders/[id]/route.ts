import { look } from "../../../lib/order";

export async function GET(_: Request, { params }: { params: Promise<{ id: string }> }) {
  return Response.json(await look((await params).id));
}

import { approve } from "../../../../lib/order";

export async function POST(request: Request, { params }: { params: Promise<{ id: string }> }) {
  return Response.json(await approve((await params).id, await request.json()));
}

import { begin } from "../../lib/order";

export async function POST(request: Request) {
  return Response.json(await begin(await request.json()), { status: 201 });
}

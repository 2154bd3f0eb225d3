"use server";

import { redirect } from "next/navigation";
import { buy } from "../lib/shop";

export async function purchase(form: FormData) {
  const id = await buy(Number(form.get("amount")));
  redirect(`/orders/${id}`);
}

/** The other process of `chats.ts`: pages that read their chats, and how old each token was. */
const [url = "", count = "1"] = process.argv.slice(2);

const ages: number[] = [];
await Promise.all(Array.from({ length: Number(count) }, (_, n) => read(`chat-${n}`)));
ages.sort((a, b) => a - b);
const quantile = (share: number) => ages[Math.floor(ages.length * share)] ?? Number.NaN;
console.log(JSON.stringify({ tokens: ages.length, p50: quantile(0.5), p95: quantile(0.95) }));

async function read(id: string): Promise<void> {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ id, messages: [{ id: "m", role: "user", parts: [{ type: "text", text: "Tick" }] }] }),
  });
  if (!response.ok) throw new Error(`${id}: ${response.status} ${await response.text()}`);
  let rest = "";
  for await (const piece of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    const now = performance.timeOrigin + performance.now();
    const lines = `${rest}${piece}`.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const [, delta] = /"type":"text-delta".*"delta":"([\d. ]+)"/.exec(line) ?? [];
      for (const token of delta?.trim().split(" ") ?? []) ages.push(now - Number(token));
    }
  }
}

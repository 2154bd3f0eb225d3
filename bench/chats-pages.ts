/** The other process of `chats.ts`: pages that read their chats, and how old each token was. */
const [url = "", count = "1"] = process.argv.slice(2);

const ages: number[] = [];
const ends = await Promise.allSettled(Array.from({ length: Number(count) }, (_, n) => read(`chat-${n}`)));
const lost = ends.filter((end) => end.status === "rejected");
if (lost[0]) console.error(lost[0].reason);
ages.sort((a, b) => a - b);
const quantile = (share: number) => ages[Math.floor(ages.length * share)] ?? Number.NaN;
const { user, system } = process.cpuUsage();
console.log(
  JSON.stringify({
    tokens: ages.length,
    lost: lost.length,
    p50: quantile(0.5),
    p95: quantile(0.95),
    cpuUs: user + system,
  }),
);

async function read(id: string): Promise<void> {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ id, messages: [{ id: "m", role: "user", parts: [{ type: "text", text: "Tick" }] }] }),
  });
  if (!response.ok) throw new Error(`${id}: ${response.status} ${await response.text()}`);
  let isWhole = false;
  let rest = "";
  for await (const piece of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    const now = performance.timeOrigin + performance.now();
    const lines = `${rest}${piece}`.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "data: [DONE]") isWhole = true;
      const [, delta] = /"type":"text-delta".*"delta":"([\d. ]+)"/.exec(line) ?? [];
      for (const token of delta?.trim().split(" ") ?? []) ages.push(now - Number(token));
    }
  }
  if (!isWhole) throw new Error(`${id} broke off`);
}

/** A strict reader of OpenMetrics 1.0 text: what a scraper might let pass is refused here, with its line. */

export interface ParsedSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface ParsedFamily {
  readonly name: string;
  readonly type: string;
  readonly unit: string | null;
  readonly help: string;
  readonly samples: readonly ParsedSample[];
}

const metricName = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const labelName = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const number = /^[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|Inf)$/;
const suffixes: Readonly<Record<string, readonly string[]>> = {
  counter: ["_total", "_created"],
  gauge: [""],
  histogram: ["_bucket", "_count", "_sum", "_created"],
};

/** @throws {Error} the line that breaks a rule, and which */
export function parseOpenMetrics(text: string): Map<string, ParsedFamily> {
  if (!text.endsWith("\n# EOF\n") && text !== "# EOF\n")
    throw new Error(`does not end with "# EOF": ${text.slice(-40)}`);
  const lines = text.slice(0, -1).split("\n").slice(0, -1);
  const families = new Map<string, ParsedFamily & { samples: ParsedSample[] }>();
  let open = null as { name: string; meta: Map<string, string>; samples: ParsedSample[] } | null;

  const finish = () => {
    if (!open) return;
    const { name, meta, samples } = open;
    const type = meta.get("TYPE") ?? "unknown";
    if (samples.length === 0) throw new Error(`${name} has no samples`);
    if (!meta.get("HELP")) throw new Error(`${name} has no HELP`);
    const unit = meta.get("UNIT") ?? null;
    if (unit !== null && !name.endsWith(`_${unit}`)) throw new Error(`${name} does not end in its unit ${unit}`);
    if (type === "histogram") checkHistogram(name, samples);
    if (type === "counter")
      for (const { value } of samples) if (!(value >= 0)) throw new Error(`${name} counts ${value}`);
    families.set(name, { name, type, unit, help: meta.get("HELP") ?? "", samples });
    open = null;
  };

  const seen = new Set<string>();
  for (const line of lines) {
    if (line === "" || line !== line.trim()) throw new Error(`a blank line, or blanks around: ${JSON.stringify(line)}`);
    const metadata = /^# (TYPE|UNIT|HELP) (\S+) (.+)$/.exec(line);
    if (metadata) {
      const [, kind = "", name = "", value = ""] = metadata;
      if (!metricName.test(name)) throw new Error(`no name of a metric: ${line}`);
      if (open?.name !== name) {
        finish();
        if (families.has(name)) throw new Error(`the family came before, interleaved: ${line}`);
        open = { name, meta: new Map(), samples: [] };
      }
      if (open.samples.length > 0) throw new Error(`metadata behind samples: ${line}`);
      if (open.meta.has(kind)) throw new Error(`said twice: ${line}`);
      if (kind === "TYPE" && !(value in suffixes)) throw new Error(`an unknown type: ${line}`);
      if (kind === "HELP") unescaped(value, line);
      open.meta.set(kind, value);
      continue;
    }
    if (line.startsWith("#")) throw new Error(`no metadata, and there are no comments: ${line}`);
    const sample = parseSample(line);
    const type = open?.meta.get("TYPE");
    const fits = open && type && suffixes[type]?.some((suffix) => `${open?.name}${suffix}` === sample.name);
    if (!open || !fits) throw new Error(`not of the family ${open?.name ?? "none"} (${type ?? "no type"}): ${line}`);
    const key = `${sample.name} ${JSON.stringify(Object.entries(sample.labels).toSorted(([a], [b]) => (a < b ? -1 : 1)))}`;
    if (seen.has(key)) throw new Error(`the same sample twice: ${line}`);
    seen.add(key);
    open.samples.push(sample);
  }
  finish();
  return families;
}

function parseSample(line: string): ParsedSample {
  const [, name = "", inside, value = ""] = /^([^\s{]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
  if (!metricName.test(name)) throw new Error(`no sample: ${line}`);
  if (!number.test(value)) throw new Error(`no number: ${line}`);
  const labels: Record<string, string> = {};
  let rest = inside ?? "";
  while (rest !== "") {
    const [whole = "", label = "", text = ""] = /^([^=,{}"]+)="((?:[^"\\\n]|\\.)*)"(?:,(?=.)|$)/.exec(rest) ?? [];
    if (!labelName.test(label) || label.startsWith("__")) throw new Error(`no label: ${line}`);
    if (label in labels) throw new Error(`a label twice: ${line}`);
    labels[label] = unescaped(text, line);
    rest = rest.slice(whole.length);
  }
  return { name, labels, value: Number(value.replace("Inf", "Infinity")) };
}

function unescaped(text: string, line: string): string {
  return text.replace(/\\(.?)/g, (_, character: string) => {
    if (character === "n") return "\n";
    if (character !== "\\" && character !== '"') throw new Error(`an unknown escape: ${line}`);
    return character;
  });
}

/** Buckets ascend, count upwards and end with +Inf, which is the count; each label set stands together. */
function checkHistogram(name: string, samples: readonly ParsedSample[]): void {
  const groups: { key: string; samples: ParsedSample[] }[] = [];
  for (const sample of samples) {
    const { le: _, ...labels } = sample.labels;
    const key = JSON.stringify(labels);
    const last = groups.at(-1);
    if (last?.key === key) last.samples.push(sample);
    else if (groups.some((group) => group.key === key)) throw new Error(`${name} interleaves ${key}`);
    else groups.push({ key, samples: [sample] });
  }
  for (const { key, samples: all } of groups) {
    const buckets = all.filter((sample) => sample.name === `${name}_bucket`);
    const count = all.find((sample) => sample.name === `${name}_count`);
    const sum = all.find((sample) => sample.name === `${name}_sum`);
    const bounds = buckets.map(({ labels }) => labels["le"] ?? "");
    if (bounds.at(-1) !== "+Inf") throw new Error(`${name}${key} has no bucket +Inf`);
    if (!bounds.slice(0, -1).every((bound) => /^\d+\.\d+(?:e[+-]\d+)?$/.test(bound)))
      throw new Error(`${name}${key} has bounds that are no floats: ${bounds.join(" ")}`);
    const rises = (values: readonly number[], strictly: boolean) =>
      values.every(
        (value, index) => index === 0 || value > (values[index - 1] ?? 0) || (!strictly && value === values[index - 1]),
      );
    if (
      !rises(
        bounds.map((bound) => Number(bound.replace("+Inf", "Infinity"))),
        true,
      )
    )
      throw new Error(`${name}${key}: bounds do not ascend`);
    if (
      !rises(
        buckets.map(({ value }) => value),
        false,
      )
    )
      throw new Error(`${name}${key}: buckets do not accumulate`);
    if (!count || count.value !== buckets.at(-1)?.value)
      throw new Error(`${name}${key}: _count is not the last bucket`);
    if (!sum || sum.value < 0) throw new Error(`${name}${key}: no _sum`);
  }
}

/**
 * Reviews a document: its sections are measured side by side, the risk decides who looks at it, and the report is
 * written when both the decision and the index are there. `npm run demo` runs it.
 */
import { z } from "zod";
import { defineFlow } from "../src/index.ts";

const Section = z.object({ number: z.number(), title: z.string(), text: z.string() });
type Section = z.infer<typeof Section>;

const Finding = z.object({ section: z.string(), word: z.string(), weight: z.number(), sentence: z.string() });
type Finding = z.infer<typeof Finding>;

const Level = z.enum(["low", "medium", "high"]);
const Decision = z.object({ level: Level, score: z.number(), next: z.string(), sections: z.array(z.string()) });
const Keyword = z.object({ word: z.string(), score: z.number() });

export const documentReview = defineFlow("document-review", {
  input: z.object({ name: z.string(), text: z.string().regex(/\w/, "has no words") }),
  state: z
    .object({
      findings: z.array(Finding),
      decision: Decision,
      report: z.object({
        sections: z.number(),
        words: z.number(),
        readingEase: z.number(),
        keywords: z.array(z.string()),
        summary: z.string(),
      }),
    })
    .partial(),
  events: {
    Measured: z.object({ counts: z.array(z.record(z.string(), z.number())) }),
    Indexed: z.object({ keywords: z.array(Keyword) }),
    Scored: z.object({ sections: z.number(), words: z.number(), readingEase: z.number() }),
  },
  stream: z.object({ step: z.string(), text: z.string() }),
});

documentReview
  .to("split", async (ctx) => {
    const sections = splitSections(ctx.input.text);
    await ctx.putIntoStream({ step: "split", text: `${ctx.input.name}: ${sections.length} sections` });
    return sections;
  })
  .forEach({ concurrency: 4 })
  .to("measure", async (ctx) => ({ section: ctx.input, ...measure(ctx.input.text) }))
  .to("find risks", async (ctx) => {
    const { section, words, ...measured } = ctx.input;
    const findings = findRisks(section);
    for (const finding of findings.slice(0, 1)) await ctx.appendState("findings", finding);
    const risk = findings.reduce((sum, { weight }) => sum + weight, 0);
    await ctx.putIntoStream({
      step: "section",
      text: `${section.title} · ${words} words · ease ${Math.round(measured.readingEase)} · risk ${risk}`,
    });
    return { title: section.title, words, ...measured, risk };
  })
  .endForEach()
  .to("aggregate", async (ctx) => {
    // From here two chains run side by side: this one decides, the one behind `when("Measured")` builds the index.
    await ctx.emit("Measured", { counts: ctx.input.map(({ counts }) => counts) });
    const words = total(ctx.input.map((section) => section.words));
    const readingEase = total(ctx.input.map((section) => section.readingEase * section.words)) / Math.max(words, 1);
    const risk = total(ctx.input.map((section) => section.risk));
    const risky = ctx.input.toSorted((a, b) => b.risk - a.risk).filter((section) => section.risk > 0);
    return {
      sections: ctx.input.length,
      words,
      readingEase: Math.round(readingEase),
      // Risk per thousand words, so that a long document is not a risk by itself.
      score: Math.round((1000 * risk) / Math.max(words, 200)),
      risky: risky.map(({ title }) => title),
    };
  })
  .match()
  .case((ctx) => ctx.input.score >= 50)
  .to("escalate", async (ctx) => {
    const sections = ctx.input.risky.slice(0, 5);
    await ctx.setState("decision", { level: "high", score: ctx.input.score, next: "a lawyer reads it all", sections });
    return ctx.input;
  })
  .case((ctx) => ctx.input.score >= 15)
  .to("annotate", async (ctx) => {
    const sections = ctx.input.risky.slice(0, 3);
    await ctx.setState("decision", { level: "medium", score: ctx.input.score, next: "negotiate these", sections });
    return ctx.input;
  })
  .caseElse()
  .to("accept", async (ctx) => {
    await ctx.setState("decision", { level: "low", score: ctx.input.score, next: "sign it", sections: [] });
    return ctx.input;
  })
  .endMatch()
  .to("announce", async (ctx) => {
    const level = ctx.getState("decision.level", "low");
    await ctx.putIntoStream({ step: "decision", text: `risk ${ctx.input.score} per 1,000 words: ${level}` });
    const { sections, words, readingEase } = ctx.input;
    await ctx.emit("Scored", { sections, words, readingEase });
  });

documentReview.when("Measured").to("index", async (ctx) => {
  const keywords = rankKeywords(ctx.input.counts, 8);
  await ctx.putIntoStream({ step: "keywords", text: keywords.map(({ word }) => word).join(", ") });
  await ctx.emit("Indexed", { keywords });
});

documentReview.when(["Scored", "Indexed"]).to("report", async (ctx) => {
  const { Scored: scored, Indexed: indexed } = ctx.input;
  const decision = ctx.getState("decision");
  const findings = ctx.getState("findings", []);
  await ctx.setState("report", {
    ...scored,
    keywords: indexed.keywords.map(({ word }) => word),
    summary: `${decision?.level ?? "low"} risk in ${findings.length} of ${scored.sections} sections: ${decision?.next ?? "-"}`,
  });
  await ctx.putIntoStream({ step: "report", text: "written" });
});

/** For `npx flowledger worker examples/document-review.ts`. */
export const flows = [documentReview];

// ── the work: plain functions, which know nothing of flows ──────────────────────────────────────────────────

/** At headings of markdown, else at numbered titles, else about every 250 words. */
function splitSections(text: string): Section[] {
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  const isHeading = [/^#{1,6}\s+\S/, /^(\d+(\.\d+)*\.?|[IVX]+\.|§\s*\d+)\s+\p{Lu}.{0,80}$/u].find(
    (pattern) => lines.filter((line) => pattern.test(line)).length > 1,
  );
  const parts: { title: string; lines: string[] }[] = [];
  let size = 0;
  for (const line of lines) {
    const begins = isHeading ? isHeading.test(line) : parts.length === 0 || (size > 250 && line.trim() === "");
    if (begins || parts.length === 0) {
      const title = isHeading?.test(line) ? line.replace(/^#+\s*/, "").trim() : `part ${parts.length + 1}`;
      parts.push({ title, lines: [] });
      size = 0;
    }
    if (!isHeading?.test(line)) parts.at(-1)?.lines.push(line);
    size += wordsOf(line).length;
  }
  return parts
    .map((part) => ({ title: part.title, text: part.lines.join("\n").trim() }))
    .filter((part) => /\w/.test(part.text))
    .map((part, index) => ({ number: index + 1, ...part }));
}

/** Counts, and the Flesch reading ease: 100 is easy, 30 is a contract, below 0 is a bad one. */
function measure(text: string) {
  const words = wordsOf(text);
  const sentences = sentencesOf(text).length;
  const syllables = total(words.map(syllablesOf));
  const perWord = 1 / Math.max(words.length, 1);
  const readingEase = 206.835 - (1.015 * words.length) / Math.max(sentences, 1) - 84.6 * syllables * perWord;
  const counts: Record<string, number> = {};
  for (const word of words) if (word.length > 3 && !common.has(word)) counts[word] = (counts[word] ?? 0) + 1;
  return { words: words.length, sentences, readingEase: Math.round(readingEase * 10) / 10, counts };
}

/** The words that cost people money, with the sentence each stands in, the heaviest first. */
function findRisks({ title, text }: Section): Finding[] {
  return sentencesOf(text)
    .flatMap((sentence) =>
      riskWords
        .filter(([pattern]) => pattern.test(sentence))
        .map(([pattern, weight]) => ({
          section: title,
          word: pattern.exec(sentence)?.[0].toLowerCase() ?? "",
          weight,
          sentence: sentence.length > 160 ? `${sentence.slice(0, 159)}…` : sentence,
        })),
    )
    .toSorted((a, b) => b.weight - a.weight);
}

/** Words that are frequent here without being everywhere (TF-IDF over the sections), best first. */
function rankKeywords(counts: readonly Readonly<Record<string, number>>[], limit: number) {
  const words = new Map<string, { count: number; sections: number }>();
  for (const [word, count] of counts.flatMap((section) => Object.entries(section))) {
    const known = words.get(word) ?? { count: 0, sections: 0 };
    words.set(word, { count: known.count + count, sections: known.sections + 1 });
  }
  return [...words]
    .map(([word, { count, sections }]) => ({ word, score: count * Math.log(1 + counts.length / sections) }))
    .toSorted((a, b) => b.score - a.score)
    .slice(0, limit);
}

function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/\p{L}[\p{L}'’-]*/gu) ?? [];
}

function sentencesOf(text: string): string[] {
  return text
    .replaceAll(/\s+/g, " ")
    .split(/(?<=[.!?;])\s+(?=[\p{Lu}(])/u)
    .filter((sentence) => /\p{L}{2}/u.test(sentence));
}

function syllablesOf(word: string): number {
  const groups = word.replace(/e$/, "").match(/[aeiouyäöü]+/g);
  return Math.max(groups?.length ?? 0, 1);
}

function total(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0);
}

const riskWords: readonly (readonly [pattern: RegExp, weight: number])[] = [
  [/\bindemnif(y|ies|ied)\b|\bindemnity\b|\bhold harmless\b/i, 5],
  [/\bwithout (prior )?notice\b/i, 5],
  [/\b(sole|absolute) discretion\b/i, 4],
  [/\birrevocabl[ey]\b/i, 4],
  [/\bforfeit(s|ed|ure)?\b/i, 4],
  [/\bautomatic(ally)? renew(s|ed|al)?\b|\brenew(s|ed)? automatically\b/i, 4],
  [/\bpenalt(y|ies)\b|\bliquidated damages\b/i, 3],
  [/\bwaive(s|d|r)?\b/i, 3],
  [/\bevict(s|ed|ion)?\b/i, 3],
  [/\bliab(le|ility)\b/i, 2],
  [/\bterminat(e|es|ed|ion)\b/i, 2],
  [/\barbitrat(ion|or)\b/i, 2],
  [/\bdefault(s|ed)?\b/i, 2],
  [/\blate (fee|charge)s?\b/i, 2],
  [/\bnon-?refundable\b/i, 2],
];

const common = new Set(
  `about above after again also been before being below between both cannot could does down during each either every
  from further have having here into itself more most must only other otherwise over same shall should such than that
  their them then there these they this those through under until upon very were what when where which while whom whose
  will with within without would your yours`.split(/\s+/),
);

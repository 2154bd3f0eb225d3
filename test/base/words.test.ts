/** The words of the field, and none of the private ones that stood for them: what each was replaced by. */
import { globSync, readFileSync } from "node:fs";
import { join, resolve, sep } from "node:path";
import { expect, test } from "vitest";

const root = resolve(import.meta.dirname, "../..");

/** Names that are no names any more, by the word in their place. Ordinary words of English are not in it. */
const replaced: Readonly<Record<string, RegExp>> = {
  "stealDue, stealAfterMs": /\bhelpAfterMs\b/,
  "reap, sweep": /\b(?:tend|tend_places|keep_limits)\b/,
  "poll, pollEveryMs, pollWithinMs": /\b(?:lookAround|lookAgainMs|lookedAt|lookWithinMs)\b/,
  poisonSuspects: /\b(?:takesSuspects|suspects|isSuspect)\b/,
  "slots, acquired, not_started, notified_at": /\b(?:is_fresh|called_at|stands? in line)\b/,
  "acquire, release, tryAcquire": /\btryTake\b/,
  "SlotRequest, claimLimited, handOverSlot, releaseSlot": /\b(?:Ticket|takeTurn|passPlace|leavePlace)\b/,
  "database_identity, is_original": /\b(?:homes|adopt|is_home)\b/,
  "propagate_close, relatives": /\b(?:settle_families|hasFamily|propagate_families)\b/,
  OpenMatch: /\bMatchFrame\b/,
  Matches: /\b[Hh]its\b/,
  "send, batch, queue, inFlight": /\b(?:fly|flights|isFlying|Departure|Lane|openLane|lanes)\b/,
  resolveRejected: /\bjudge\b/,
  retryTransient: /\binsist\b/,
  withAnswerLimit: /\banswered\((?=[a-z]+\.)/,
  queriesOf: /\bborrow\b/,
  applyCommitTime: /(?<![.\w])stamp\(/,
  skipLocked: /\bisCareful\b/,
  ContractOwner: /\b(?:Door|isDoor)\b/,
  "entry point": /\b(?:front )?doors?\b(?![/-])/,
  "invalid, an integer from … to …": /cannot be meant|is not possible/,
  "notifyReaders, notifyOwner, subscribe": /\b(?:onAny|onNews|onRemote)\b|\bwakeups\.(?:send|call|on)\(/,
  "claimFlushDelayMs, childWaitMs, inMemoryTimerMs": /\b(?:lonelyClaimMs|lingerMs|nearMs)\b/,
  cancelledExternally: /\bisDropped\b/,
  "visibleIn, propagate_up": /\b(?:shownOn|show_above)\b/,
  "register_worker, heartbeat": /\bsign_up\b/,
};

/** What older databases and saves hold under the old names. */
const kept: Readonly<Record<string, RegExp>> = {
  "src/store/migrate.ts": /\bhomes\b/,
  "src/execution/saved.ts": /\bshownOn\b/,
};

const files = globSync("{src/**/*.{ts,tsx},migrations/functions/*.sql,docs/*.md,README.md,CONTRIBUTING.md}", {
  cwd: root,
}).map((file) => file.split(sep).join("/"));

test.each(Object.entries(replaced))("%s is the word", (_, old) => {
  const found = files.flatMap((file) =>
    readFileSync(join(root, file), "utf8")
      .split("\n")
      .flatMap((line, index) =>
        old.test(line) && !kept[file]?.test(line) ? [`${file}:${index + 1} ${line.trim()}`] : [],
      ),
  );

  expect(files.length).toBeGreaterThan(250);
  expect(found).toEqual([]);
});

test("the glossary is the same in the code and in the guide", () => {
  const glossary = (file: string) =>
    [...readFileSync(join(root, file), "utf8").matchAll(/^(?: \* )?(- \*\*[a-z ]+\*\*: .*)$/gm)].map(
      ([, line]) => line,
    );
  const [, words = ""] = readFileSync(join(root, "docs/guide.md"), "utf8").split("\n## Words\n");
  const inGuide = glossary("docs/guide.md").filter((line = "") =>
    words.slice(0, words.indexOf("\n## ")).includes(line),
  );

  expect(inGuide.length).toBeGreaterThanOrEqual(12);
  expect(glossary("src/index.ts")).toEqual(inGuide);
});

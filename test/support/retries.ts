/** At the end of a run: the tests that passed only when they were tried again. */
import type { Reporter, TestModule } from "vitest/node";

export const retries: Reporter = {
  onTestRunEnd(modules: readonly TestModule[]) {
    const retried = modules.flatMap((module) =>
      [...module.children.allTests()].flatMap((test) => {
        const count = test.diagnostic()?.retryCount ?? 0;
        return count > 0 ? [`${module.relativeModuleId} > ${test.fullName} (${count} more)`] : [];
      }),
    );
    if (retried.length > 0) console.log(`\nTests that were tried again:\n${retried.join("\n")}\n`);
  },
};

/** How a command goes out, and who hears of it. */
import type { ExecutionId } from "../ledger/event.ts";
import type { CommandsIn, Sender } from "../store/commands.ts";
import type { Store } from "../store/store.ts";

export async function sendCommand<T>(
  { commands, wakeups }: Pick<Store, "commands" | "wakeups">,
  sender: Sender | undefined,
  id: ExecutionId,
  flow: string,
  send: (commands: CommandsIn) => Promise<T>,
): Promise<T> {
  const { answer, isClaimed } = (await sender?.send(id, flow, send)) ?? {
    answer: await send(commands),
    isClaimed: false,
  };
  // An owner that has just claimed the execution knows of the command.
  if (isClaimed) wakeups.notifyReaders(id);
  else wakeups.notifyOwner(id);
  return answer;
}

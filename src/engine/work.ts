/** What attempts hand to their owner, to be in the ledger before it counts. */
import type { Command, Effect } from "../ledger/command.ts";
import type { Send } from "../store/transactions.ts";
import type { Running } from "./running.ts";

/** What an attempt wants to be in the ledger. */
export class Work {
  /** The attempt that waits for the answer; null when it has ended. */
  readonly dispatch: number | null;
  readonly commands: readonly Command[];
  readonly accepted: () => void;
  readonly refused: (error: unknown) => void;
  /** An attempt that has ended: it holds its slot until that is in the ledger. */
  readonly ended: Running | null;
  /** Where its events begin among those that are sent together. */
  from = 0;

  constructor(
    dispatch: number | null,
    commands: readonly Command[],
    accepted: () => void,
    refused: (error: unknown) => void,
    ended: Running | null = null,
  ) {
    this.dispatch = dispatch;
    this.commands = commands;
    this.accepted = accepted;
    this.refused = refused;
    this.ended = ended;
  }
}

/** A record that an application's transaction carries. */
export interface Recording {
  readonly dispatch: number;
  readonly effect: Effect;
  readonly send: Send;
  readonly accepted: () => void;
  readonly refused: (error: unknown) => void;
}

export function effectCommands(dispatch: number, effects: readonly Effect[]): Command[] {
  return effects.map((effect) => ({ type: "effect", dispatch, effect }));
}

/** Of the packages beside us only what is called here, so that the repository type-checks without them; graphile-worker it has. */

declare module "@dbos-inc/dbos-sdk" {
  interface Handle {
    readonly workflowID: string;
    getResult(): Promise<unknown>;
  }
  type Workflow<Args extends unknown[]> = (...args: Args) => Promise<unknown>;
  export const DBOS: {
    setConfig(config: {
      name: string;
      systemDatabaseUrl: string;
      systemDatabasePoolSize: number;
      executorID: string;
      applicationVersion: string;
      logLevel: string;
    }): void;
    launch(): Promise<void>;
    shutdown(): Promise<void>;
    registerWorkflow<Args extends unknown[]>(work: Workflow<Args>, config: { name: string }): Workflow<Args>;
    startWorkflow<Args extends unknown[]>(workflow: Workflow<Args>): (...args: Args) => Promise<Handle>;
    runStep(step: () => Promise<unknown>, config: { name: string }): Promise<unknown>;
    recv(topic: string, timeoutSeconds: number): Promise<unknown>;
    send(workflowId: string, message: unknown, topic: string): Promise<void>;
  };
}

declare module "openworkflow" {
  import type { BackendPostgres } from "openworkflow/postgres";

  interface Step {
    run(config: { name: string }, work: () => unknown): Promise<unknown>;
    waitForSignal(options: { name: string; signal: string; timeout: string }): Promise<unknown>;
  }
  interface Handle {
    readonly workflowRun: { readonly id: string };
    result(): Promise<unknown>;
  }
  export class OpenWorkflow {
    constructor(options: { backend: BackendPostgres });
    defineWorkflow<Input>(
      spec: { name: string },
      work: (given: { input: Input; step: Step }) => Promise<unknown>,
    ): { run(input: Input): Promise<Handle> };
    newWorker(options: { concurrency: number }): { start(): Promise<void>; stop(): Promise<void> };
    sendSignal(options: { signal: string; data: boolean }): Promise<{ workflowRunIds: string[] }>;
  }
}

declare module "openworkflow/postgres" {
  export class BackendPostgres {
    static connect(url: string): Promise<BackendPostgres>;
    getWorkflowRun(run: { workflowRunId: string }): Promise<{ status: string; workerId: string | null } | null>;
    stop(): Promise<void>;
  }
}

declare module "absurd-sdk" {
  interface Context {
    step(name: string, work: () => Promise<unknown>): Promise<unknown>;
    awaitEvent(name: string): Promise<unknown>;
  }
  export class Absurd {
    constructor(options: { db: string; queueName: string });
    createQueue(name: string): Promise<void>;
    registerTask<Input>(options: { name: string }, work: (input: Input, ctx: Context) => Promise<unknown>): void;
    spawn(name: string, input: object): Promise<{ taskID: string }>;
    emitEvent(name: string, payload: boolean): Promise<void>;
    fetchTaskResult(taskId: string): Promise<{ state: string } | null>;
    awaitTaskResult(taskId: string): Promise<unknown>;
    startWorker(options: {
      concurrency: number;
      fatalOnLeaseTimeout: boolean;
      onError: (error: Error) => void;
    }): Promise<{ close(): Promise<void> }>;
    close(): Promise<void>;
  }
}

declare module "pg-boss" {
  export class PgBoss {
    constructor(options: {
      connectionString: string;
      max: number;
      useListenNotify: boolean;
      superviseIntervalSeconds: number;
      monitorIntervalSeconds: number;
    });
    on(event: "error", listener: (error: Error) => void): void;
    start(): Promise<unknown>;
    stop(options: { graceful: boolean }): Promise<void>;
    createQueue(
      name: string,
      options: { notify: boolean; heartbeatSeconds: number; retryLimit: number },
    ): Promise<void>;
    send(queue: string, data: object): Promise<string | null>;
    work<Input>(
      queue: string,
      options: { batchSize: number; burstWhenBatchFull: boolean; pollingIntervalSeconds: number },
      handler: (jobs: readonly { readonly data: Input }[]) => Promise<void>,
    ): Promise<string>;
  }
}

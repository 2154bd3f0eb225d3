/** Preloaded into a worker: its wall clock is off by CHAOS_SKEW_MS. The monotonic clock stays right, as in real life. */
const skewMs = Number(process.env["CHAOS_SKEW_MS"] ?? 0);
const RealDate = Date;
const realNow = RealDate.now.bind(RealDate);

globalThis.Date = new Proxy(RealDate, {
  construct: (target, given: unknown[], newTarget) =>
    Reflect.construct(target, given.length === 0 ? [realNow() + skewMs] : given, newTarget) as object,
  get: (target, name, receiver) => (name === "now" ? () => realNow() + skewMs : Reflect.get(target, name, receiver)),
});

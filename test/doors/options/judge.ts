/** Every place of a call, with what is right there and what is wrong. */
import { placesOf, type Fields, type Kind, type Place } from "./kinds.ts";

export interface Tried {
  /** As a failure shows it. */
  readonly what: string;
  readonly args: readonly unknown[];
}
export interface Judged {
  readonly where: string;
  readonly wrong: readonly Tried[];
  readonly right: readonly Tried[];
}

/**
 * The arguments are right everywhere but at the place.
 *
 * @param odd what is tried at a place
 */
export function judgedPlaces(
  name: string,
  args: Fields,
  odd: (place: Place) => Readonly<Record<string, unknown>>,
): Judged[] {
  const samples = Object.values(args).map((kind) => kind.sample());
  const places = Object.entries(args).flatMap(([label, kind], index) =>
    placesOf(label, kind).map((place): Judged => {
      const given = ([what, value]: readonly [string, unknown]) => ({
        what,
        args: samples.map((one, at) => (at === index ? place.given(value) : one)),
      });
      const of = (isRight: boolean) =>
        valuesOf(place.kind, odd(place))
          .filter(([, value]) => place.kind.takes(value) === isRight)
          .map(given);
      const { longest } = place.kind;
      const most = longest !== undefined && place.kind.takes(longest) ? [["the longest text", longest] as const] : [];
      return { where: `${name}(${place.name})`, wrong: of(false), right: [...of(true), ...most.map(given)] };
    }),
  );
  return places.length > 0 ? places : [{ where: `${name}()`, wrong: [], right: [{ what: "nothing", args: [] }] }];
}

function valuesOf({ fields }: Kind, odd: Readonly<Record<string, unknown>>): [string, unknown][] {
  const values = Object.entries(odd);
  if (!fields) return values;
  const sample = Object.fromEntries(
    Object.entries(fields)
      .map(([name, field]) => [name, field.sample()])
      .filter(([, value]) => value !== undefined),
  );
  const misspelt = Object.keys(fields).flatMap((name) =>
    [`${name}s`, name.toUpperCase()].filter((wrong) => !Object.hasOwn(fields, wrong)),
  );
  return [
    ...values,
    ["what is right", sample],
    ...[...misspelt, "unknown", "constructor"].map((name): [string, unknown] => [
      `an option ${name}`,
      { ...sample, [name]: null },
    ]),
  ];
}

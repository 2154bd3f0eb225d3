/** Stored text on its way to a terminal, or to a page. */

/** Control characters but tab and line feed, and what is not seen: it has no width, or changes the direction of others. What makes an emoji of a character stays. */
export const hidden =
  // oxlint-disable-next-line no-control-regex
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\ufff9-\ufffb]|(?![\ufe0e\ufe0f])\p{Default_Ignorable_Code_Point}/gu;

/** Stored text as it may be written to a terminal: what would move its cursor, or change what else is there, is shown as what it is. */
export function visible(text: string): string {
  return text.replace(hidden, escapeOf);
}

/** A character as JSON writes it. */
export function escapeOf(character: string): string {
  const units = Array.from({ length: character.length }, (_, at) => character.charCodeAt(at));
  return units.map((unit) => `\\u${unit.toString(16).padStart(4, "0")}`).join("");
}

/** Text of several lines below what begins a line: none of them looks like another one. */
export function indented(text: string): string {
  return visible(text).replaceAll("\n", "\n  ");
}

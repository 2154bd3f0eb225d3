/** Text in a document that the server writes. */
import { visible } from "../base/visible.ts";

/** As text and as the value of an attribute; what cannot be seen is shown as what it is. */
export function escaped(value: string): string {
  return asTyped(visible(value.replaceAll("\r\n", "\n")));
}

/** The same of what a person has typed, who sends it again: no character is another one. */
export function asTyped(value: string): string {
  return value.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

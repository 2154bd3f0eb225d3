/** Text in a document that the server writes. */
import { visible } from "../base/visible.ts";

/** As text and as the value of an attribute; what cannot be seen is shown as what it is. */
export function escaped(value: string): string {
  return visible(value.replaceAll("\r\n", "\n"))
    .replaceAll("&", "&amp;")
    .replaceAll('"', "&quot;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;");
}

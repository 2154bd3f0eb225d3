/** The one document of the console. It names its script and style by a query, so that it works under any path. */
import { createHash } from "node:crypto";
import { assets } from "./assets.ts";
import { escaped } from "./html.ts";
import { text } from "./http.ts";
import type { Settings } from "./options.ts";
import { themeCss } from "./theme.ts";

/** Named by what they are, so that they may be kept for ever. */
const forEver = { "cache-control": "private, max-age=31536000, immutable" };

const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#3450c4"/><path d="M4 4h8M4 8h5M4 12h7" stroke="#fff" stroke-width="1.8" stroke-linecap="round"/></svg>`;

export async function document({ css }: Pick<Settings, "css">): Promise<Response> {
  const { script, style } = await assets();
  const own = css === null ? "" : `<link rel="stylesheet" href="${escaped(css)}">`;
  return text(
    `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>flowledger</title>
<link rel="icon" href="?asset=icon.svg"><link rel="stylesheet" href="?asset=style-${nameOf(style)}.css">
<link rel="stylesheet" href="?asset=theme.css">${own}
<script defer src="?asset=page-${nameOf(script)}.js"></script></head>
<body><div id="app"></div><noscript>This page needs JavaScript. In a shell, npx flowledger shows the same.</noscript></body></html>`,
    "text/html",
  );
}

/** Null where there is none of that name: an older page may ask for what it was made with, and gets the newest. */
export async function asset(name: string, { accent }: Pick<Settings, "accent">): Promise<Response | null> {
  const { script, style } = await assets();
  if (name === "icon.svg") return text(icon, "image/svg+xml", { "cache-control": "private, max-age=86400" });
  if (name === "theme.css") return text(themeCss(accent), "text/css");
  if (/^page-[\da-f]{12}\.js$/.test(name))
    return text(script, "text/javascript", name === `page-${nameOf(script)}.js` ? forEver : {});
  if (/^style-[\da-f]{12}\.css$/.test(name))
    return text(style, "text/css", name === `style-${nameOf(style)}.css` ? forEver : {});
  return null;
}

/** For those who may not come in, and look with a browser. */
export function notSignedIn(): Response {
  return text(
    `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>flowledger</title></head><body><h1>Not signed in</h1><p>Sign in to the application that this console belongs to, and come back.</p></body></html>`,
    "text/html",
    {},
    401,
  );
}

function nameOf(content: string): string {
  return createHash("sha256").update(content).digest("hex").slice(0, 12);
}

/** An accent colour of the application's own, made readable on the console's light and dark ground (WCAG AA, 4.5 to 1). */

type Colour = readonly [red: number, green: number, blue: number];

const ground = { light: [255, 255, 255], dark: [22, 24, 29] } as const satisfies Record<string, Colour>;
const wanted = 4.6;

/** The style sheet of it; empty without one. */
export function themeCss(accent: string | null): string {
  if (accent === null) return "";
  const colour = read(accent);
  const rules = (on: Colour, towards: Colour) => {
    const shown = readable(colour, on, towards);
    const ink = contrast(shown, [255, 255, 255]) >= contrast(shown, [0, 0, 0]) ? "#fff" : "#000";
    return `--accent:${hex(shown)};--on-accent:${ink};`;
  };
  const [light, dark] = [rules(ground.light, [0, 0, 0]), rules(ground.dark, [255, 255, 255])];
  return `:root{${light}}@media (prefers-color-scheme:dark){:root{${dark}}}`;
}

function readable(colour: Colour, on: Colour, towards: Colour): Colour {
  let shown = colour;
  for (let part = 0; part <= 100 && contrast(shown, on) < wanted; part += 2) shown = mixed(colour, towards, part / 100);
  return shown;
}

export function contrast(a: Colour, b: Colour): number {
  const [light, dark] = [luminance(a), luminance(b)].toSorted((x, y) => y - x);
  return ((light ?? 0) + 0.05) / ((dark ?? 0) + 0.05);
}

function luminance(colour: Colour): number {
  const [red = 0, green = 0, blue = 0] = colour.map((channel) => {
    const part = channel / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function mixed([r, g, b]: Colour, [toR, toG, toB]: Colour, part: number): Colour {
  const mix = (from: number, to: number) => Math.round(from + (to - from) * part);
  return [mix(r, toR), mix(g, toG), mix(b, toB)];
}

function read(accent: string): Colour {
  const digits = accent.slice(1);
  const full = digits.length === 3 ? Array.from(digits, (digit) => digit + digit).join("") : digits;
  const channel = (at: number) => Number.parseInt(full.slice(at, at + 2), 16);
  return [channel(0), channel(2), channel(4)];
}

function hex(colour: Colour): string {
  return `#${colour.map((channel) => channel.toString(16).padStart(2, "0")).join("")}`;
}

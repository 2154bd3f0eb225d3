/** Figures in rows and columns, from what several rounds measured. */

export type Measured = "median" | "p50/p95";

/** A row: what was measured, and how that shows. */
export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly shows: Measured;
  /** What took longer is Infinity, and shows as more than this. */
  readonly atMost?: number;
}

export interface Table {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly { readonly name: string; readonly cells: readonly string[] }[];
}

/** What each round measured, by row and column: of a rate one number a round, of a latency many. */
export class Sheet {
  readonly #rounds = new Map<string, number[][]>();

  add(row: Row, column: string, round: number, values: readonly number[]): void {
    const rounds = this.rounds(row, column);
    (rounds[round] ??= []).push(...values);
    this.#rounds.set(key(row, column), rounds);
  }

  /** Empty where nothing was measured. */
  rounds(row: Row, column: string): number[][] {
    return this.#rounds.get(key(row, column)) ?? [];
  }

  /** Over all rounds. Null where nothing was measured. */
  value(row: Row, column: string, share = 0.5): number | null {
    return quantile(this.rounds(row, column).flat(), share);
  }

  /** The median of the ratios in each round that measured both: what a round had besides is in both. */
  ratio(row: Row, column: string, to: { readonly row?: Row; readonly column: string }): number | null {
    const others = this.rounds(to.row ?? row, to.column);
    const ratios = this.rounds(row, column).flatMap((values, round) => {
      const [one, other] = [quantile(values, 0.5), quantile(others[round] ?? [], 0.5)];
      return one === null || other === null ? [] : [one / other];
    });
    return quantile(ratios, 0.5);
  }

  /** One column in the measure of the others. Rows that none of them has are left out. */
  ratios(title: string, rows: readonly Row[], column: string, others: readonly string[]): Table {
    const lines = rows.map((row) => ({
      row,
      values: others.map((other) => this.ratio(row, column, { column: other })),
    }));
    const shown = lines.filter(({ values }) => values.some((value) => value !== null));
    return {
      title,
      columns: others,
      rows: shown.map(({ row, values }) => ({
        name: row.shows === "p50/p95" ? named(row, "p50") : row.name,
        cells: values.map((value) => (value === null ? "–" : `${format(value)} ×`)),
      })),
    };
  }

  /** Rows that no column has are left out. */
  table(title: string, rows: readonly Row[], columns: readonly string[]): Table {
    const cell = (row: Row, column: string) => {
      const middle = this.value(row, column);
      if (middle === null) return "–";
      if (middle === Infinity) return `> ${row.atMost ?? "∞"}`;
      const most = row.shows === "p50/p95" ? ` / ${format(this.value(row, column, 0.95) ?? NaN)}` : "";
      return format(middle) + most;
    };
    const shown = rows.filter((row) => columns.some((column) => this.value(row, column) !== null));
    return {
      title,
      columns,
      rows: shown.map((row) => ({
        name: named(row, `${row.unit}${row.shows === "p50/p95" ? " p50 / p95" : ""}`),
        cells: columns.map((column) => cell(row, column)),
      })),
    };
  }
}

function named(row: Row, unit: string): string {
  return unit === "" ? row.name : `${row.name}, ${unit}`;
}

/** As it stands in a terminal; also Markdown. */
export function print({ title, columns, rows }: Table): string {
  const lines = [["", ...columns], ...rows.map(({ name, cells }) => [name, ...cells])];
  const widths = lines[0]?.map((_, place) => Math.max(3, ...lines.map((line) => line[place]?.length ?? 0))) ?? [];
  const padded = lines.map((line) =>
    line.map((text, place) => (place === 0 ? text.padEnd(widths[0] ?? 0) : text.padStart(widths[place] ?? 0))),
  );
  const rule = widths.map((width, place) => "-".repeat(place === 0 ? width : width - 1) + (place === 0 ? "" : ":"));
  const [head = [], ...body] = padded;
  return [title, "", ...[head, rule, ...body].map((line) => `| ${line.join(" | ")} |`)].join("\n");
}

/** Null of nothing. */
export function quantile(values: readonly number[], share: number): number | null {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const [below, above] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  return below === undefined || above === undefined
    ? null
    : below === above
      ? below
      : below + (above - below) * (at - Math.floor(at));
}

export function format(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

function key(row: Row, column: string): string {
  return `${row.name}\n${column}`;
}

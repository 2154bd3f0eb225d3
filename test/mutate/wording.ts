/** A plugin of Stryker: how an error is worded is no rule, so it is not mutated. Which error it is, and when, is. */
interface Path {
  readonly node: { readonly type: string; readonly callee?: { readonly type: string; readonly name?: string } };
  findParent(test: (path: Path) => boolean): Path | null;
}

const texts = new Set(["StringLiteral", "TemplateLiteral"]);

function makesError({ node }: Path): boolean {
  return node.type === "NewExpression" && node.callee?.name?.endsWith("Error") === true;
}

export const strykerPlugins = [
  {
    kind: "Ignore",
    name: "wording",
    value: {
      shouldIgnore: (path: Path) =>
        texts.has(path.node.type) && path.findParent(makesError) ? "how an error is worded" : undefined,
    },
  },
];

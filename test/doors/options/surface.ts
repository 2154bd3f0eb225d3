/** What the exported types say can be given: every argument of every public function, and every option in it. */
import { resolve } from "node:path";
import {
  API,
  SignatureKind,
  SymbolFlags,
  type Checker,
  type Project,
  type Symbol,
  type Type,
} from "typescript/unstable/sync";

const root = resolve(import.meta.dirname, "../../..");
const entries = ["index", "defer", "test"] as const;
/** Interfaces whose methods users call; of all other interfaces the library makes or takes the objects. */
const called = new Set(["Ctx", "Clock", "DeferredFunction", "Worker"]);
const deepest = 4;

/**
 * Places like `Orchestrator.listExecutions(options.limit)` and `defer/listExecutions(filters.startedAt.from)`, in the order of the
 * source. An option in an option is a place of its own.
 */
export function surfaceOfTypes(): string[] {
  const api = new API({ cwd: root });
  try {
    const [project] = api.updateSnapshot({ openProjects: [resolve(root, "tsconfig.json")] }).getProjects();
    if (!project) throw new Error("tsconfig.json opens no project");
    return entries.flatMap((entry) => placesOf(project, entry));
  } finally {
    api.close();
  }
}

function placesOf(project: Project, entry: (typeof entries)[number]): string[] {
  const { checker, program } = project;
  const file = program.getSourceFile(resolve(root, `src/${entry}.ts`));
  const module = file && checker.getSymbolAtLocation(file);
  if (!module) throw new Error(`src/${entry}.ts is no module`);
  const prefix = entry === "index" ? "" : `${entry}/`;
  return checker.getExportsOfModule(module).flatMap((exported) => {
    const symbol = exported.flags & SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
    const name = `${prefix}${exported.name}`;
    if (symbol.flags & SymbolFlags.Function) return placesOfCallable(project, name, checker.getTypeOfSymbol(symbol));
    const isClass = (symbol.flags & SymbolFlags.Class) !== 0;
    if (!isClass && !called.has(exported.name)) return [];
    const type = checker.getDeclaredTypeOfSymbol(symbol);
    if (isClass && isError(checker, type)) return [];
    const statics = isClass ? placesOfMembers(project, `${name}.`, membersOf(checker, symbol)) : [];
    const inherited = new Set(
      type.getBaseTypes()?.flatMap((base) => checker.getPropertiesOfType(base).map((one) => one.name)),
    );
    const own = checker
      .getPropertiesOfType(type)
      .filter((member) => exported.name === "Ctx" || !inherited.has(member.name));
    return [...statics, ...placesOfMembers(project, `${name}.`, own)];
  });
}

function membersOf(checker: Checker, symbol: Symbol): readonly Symbol[] {
  const type = checker.getTypeOfSymbol(symbol);
  return type ? checker.getPropertiesOfType(type).filter(({ name }) => name !== "prototype") : [];
}

function placesOfMembers(project: Project, prefix: string, members: readonly Symbol[]): string[] {
  return members
    .filter((member) => isPublic(member))
    .flatMap((member) => placesOfCallable(project, prefix + member.name, project.checker.getTypeOfSymbol(member)));
}

/** Ours, and not private: `#name`, a symbol, what comes from Promise or Function. */
function isPublic(member: Symbol): boolean {
  return /^\w+$/.test(member.name) && isOurs(member);
}

function isOurs(symbol: Symbol | undefined): boolean {
  return (
    symbol?.declarations.some(
      ({ path }) => path.startsWith(`${root.toLowerCase()}/src/`) || path.startsWith(`${root}/src/`),
    ) ?? false
  );
}

function isError(checker: Checker, type: Type): boolean {
  return (
    checker.getPropertyOfType(type, "stack") !== undefined && checker.getPropertyOfType(type, "message") !== undefined
  );
}

function placesOfCallable(project: Project, name: string, type: Type | undefined): string[] {
  const { checker } = project;
  if (!type) return [];
  const places = new Set<string>();
  for (const signature of checker.getSignaturesOfType(type, SignatureKind.Call)) {
    const parameters = signature.getParameters();
    places.add(`${name}()`);
    parameters.forEach((parameter, index) => {
      const given = checker.getTypeOfSymbol(parameter);
      if (!given) return;
      const isRest = signature.hasRestParameter && index === parameters.length - 1;
      for (const [label, inner] of isRest ? elementsOf(checker, given) : [[parameter.name, given] as const])
        for (const place of placesOfValue(project, label, inner, 0)) places.add(`${name}(${place})`);
    });
  }
  // What a function has beside being called: `defer.cron`.
  for (const member of checker.getPropertiesOfType(type))
    if (places.size > 0 && isPublic(member) && isFunction(checker, checker.getTypeOfSymbol(member)))
      for (const place of placesOfCallable(project, `${name}.${member.name}`, checker.getTypeOfSymbol(member)))
        places.add(place);
  return [...places];
}

/** `...[input, options]`: the second is the options, whatever the first is by the contract. */
function elementsOf(checker: Checker, given: Type): readonly (readonly [string, Type])[] {
  // Which of the two depends on the contract; both end alike.
  const tuple = given.isConditionalType() ? given.getTrueType() : given;
  const [, named] = given.getAliasTypeArguments();
  const [, second] = tuple.isTypeReference() ? checker.getTypeArguments(tuple) : [];
  const options = named ?? second;
  const names = options ? ["input", "options"] : ["input"];
  return names.map((label, index) => [label, (index === 1 && options) || checker.getUnknownType()]);
}

function placesOfValue(project: Project, label: string, type: Type, depth: number): string[] {
  const { checker } = project;
  const places = [label];
  if (depth >= deepest) return places;
  for (const one of partsOf(checker, type)) {
    if (checker.isArrayLikeType(one)) {
      const item = checker
        .getIndexInfosOfType(one)
        .find(({ keyType }) => keyType === checker.getNumberType())?.valueType;
      // Json is its own item: it is any, whole.
      if (item && !checker.isTypeAssignableTo(checker.getNullType(), item))
        places.push(...placesOfValue(project, `${label}[]`, item, depth + 1));
      continue;
    }
    if (isFunction(checker, one) || !isOptions(project, one)) continue;
    for (const property of checker.getPropertiesOfType(one)) {
      if (!/^\w+$/.test(property.name)) continue;
      const inner = checker.getTypeOfSymbol(property);
      if (inner) places.push(...placesOfValue(project, `${label}.${property.name}`, inner, depth + 1));
    }
  }
  return [...new Set(places)];
}

/** The members of a union; what a type parameter may be. */
function partsOf(checker: Checker, type: Type): readonly Type[] {
  if (type.isTypeParameter()) {
    const constraint = checker.getBaseConstraintOfType(type);
    return constraint ? partsOf(checker, constraint) : [];
  }
  if (type.isUnionType()) return type.getTypes().flatMap((one) => partsOf(checker, one));
  return [checker.getNonNullableType(type) ?? type];
}

function isFunction(checker: Checker, type: Type | undefined): boolean {
  return type !== undefined && checker.getSignaturesOfType(type, SignatureKind.Call).length > 0;
}

/** An object written out in our sources that has data alone: no class, nothing with methods, no definition, no zod schema. */
function isOptions(project: Project, type: Type): boolean {
  const { checker } = project;
  if (!type.isObjectType() && !type.isIntersectionType()) return false;
  const properties = checker.getPropertiesOfType(type);
  if (properties.length === 0 || !properties.every((property) => isOurs(property))) return false;
  const symbol = type.getAliasSymbol() ?? type.getSymbol();
  return !(symbol && (symbol.flags & SymbolFlags.Class || made.has(symbol.name)));
}

/** What the library or its user makes elsewhere, and hands over whole. */
const made = new Set([
  "FlowDefinition",
  "FunctionDefinition",
  "ChunkRef",
  "Logger",
  "Contract",
  "Callable",
  "DeferredFunction",
  "TransactionSql",
  "PgClient",
  "DrizzleTransaction",
]);

/**
 * Where a line of the log comes from: the class and method or the function that logged it, as zap names the file and
 * line. Names survive bundling, line numbers do not. Costs some microseconds a call.
 */
export function callerOf(logFunction: (...args: never[]) => unknown): string {
  const { prepareStackTrace, stackTraceLimit } = Error;
  const holder: { stack?: unknown } = {};
  Error.prepareStackTrace = (_, sites) => sites;
  Error.stackTraceLimit = FRAMES_MAX;
  Error.captureStackTrace(holder, logFunction);
  // The sites are collected when the stack is first read.
  const sites = holder.stack as NodeJS.CallSite[];
  Error.prepareStackTrace = prepareStackTrace;
  Error.stackTraceLimit = stackTraceLimit;
  for (const site of sites) {
    const name = nameOf(site);
    if (name !== null) return name;
  }
  return "callback";
}

/** A function without a name is reported as its caller. */
const FRAMES_MAX = 4;
/** These only forward to the logger and say nothing about the caller. */
const FORWARDERS = new Set(["debug", "info", "warn", "error", "#warn"]);

function nameOf(site: NodeJS.CallSite): string | null {
  const file = site.getFileName();
  if (file === null || file === undefined || file.startsWith("node:")) return null;
  const name = site.getFunctionName();
  const type = site.getTypeName();
  if (name === null || name === "" || FORWARDERS.has(name)) return null;
  if (name.includes(".") || type === null || !isClass(type)) return name;
  // The bundler renames a class that refers to itself: `_Store`.
  const owner = type.replace(/^_/, "");
  return site.isConstructor() ? `new ${owner}` : `${owner}.${name}`;
}

/** Types of `this` that say nothing about a function: plain objects, and Node's timers, which call their callbacks. */
const NOT_CLASSES = new Set(["Object", "Function", "Timeout", "Immediate"]);

function isClass(type: string): boolean {
  return !NOT_CLASSES.has(type);
}

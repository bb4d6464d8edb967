/** The doctor's findings: in plain words what is wrong, what is lost, and what to do next. */

/**
 * `ok`: examined, nothing wrong. `note`: worth knowing. `warning`: works, but not for long. `problem`: needs action.
 */
export type Severity = "ok" | "note" | "warning" | "problem";

export interface Finding {
  readonly severity: Severity;
  /** Stable, for scripts: "quorum-lost". `docs/recovery.md` lists them. */
  readonly code: string;
  /** What was examined: "log", "database", "directory". */
  readonly subject: string;
  readonly text: string;
  /** What is permanently lost; absent when nothing is. */
  readonly lost?: string;
  /** What to do, the safest way first. */
  readonly next?: readonly string[];
  /** What `--repair` does about it, and what it changes. */
  readonly repair?: { readonly description: string; run(): string };
}

const severityOf = (findings: readonly Finding[]): Severity =>
  ORDER.find((severity) => findings.some((finding) => finding.severity === severity)) ?? "ok";

const ORDER: readonly Severity[] = ["problem", "warning", "note", "ok"];

/** Exit codes for scripts: 0 healthy, 1 warnings, 2 problems. */
export const exitCodeOf = (findings: readonly Finding[]): number =>
  ({ ok: 0, note: 0, warning: 1, problem: 2 })[severityOf(findings)];

/** Lines for a person, the worst last, where a terminal shows it. */
export function describe(findings: readonly Finding[]): string {
  const sorted = [...findings].sort((a, b) => ORDER.indexOf(b.severity) - ORDER.indexOf(a.severity));
  return sorted.map(describeOne).join("");
}

function describeOne({ severity, subject, text, lost, next = [], repair }: Finding): string {
  const head = `${severity === "problem" ? "PROBLEM" : severity}`.padEnd(8);
  const lines = [`${head} ${subject}: ${text}`];
  if (lost !== undefined) lines.push(`${MARGIN}lost: ${lost}`);
  next.forEach((step, i) => {
    lines.push(`${MARGIN}${next.length > 1 ? `${i + 1}. ` : "next: "}${step}`);
  });
  if (repair !== undefined) lines.push(`${MARGIN}--repair: ${repair.description}`);
  return `${lines.join("\n")}\n`;
}

const MARGIN = " ".repeat(11);

/** The same for programs. */
export const toJson = (findings: readonly Finding[]): string =>
  JSON.stringify({
    severity: severityOf(findings),
    findings: findings.map(({ severity, code, subject, text, lost, next, repair }) => ({
      severity,
      code,
      subject,
      text,
      ...(lost !== undefined && { lost }),
      ...(next !== undefined && { next }),
      ...(repair !== undefined && { repair: repair.description }),
    })),
  });

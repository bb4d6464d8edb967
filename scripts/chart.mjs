// Renders the chart in deploy/chart without helm, into the manifests for those who have none:
//
//   node scripts/chart.mjs [--values FILE] [--name RELEASE] [--namespace NAMESPACE]     to standard output
//   node scripts/chart.mjs --write     deploy/manifests, with TLS by cert-manager and without TLS
//   node scripts/chart.mjs --check     whether they are what the chart gives
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { parse } from "yaml";
import { templates } from "./go-template.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const chartDir = join(root, "deploy", "chart");

/** What is committed for those without helm, by its file. */
const COMMITTED = {
  "kvorum.yaml": { metrics: { serviceMonitor: true, alerts: true, dashboard: true } },
  "kvorum-without-tls.yaml": { tls: { enabled: false } },
};

/** The chart as one text of YAML documents, as `helm template` gives it: by file, in the order of their names. */
function renderChart(given = {}, name = "kvorum", namespace = "default", service = "Helm") {
  const read = (path) => readFileSync(join(chartDir, path), "utf8");
  const names = readdirSync(join(chartDir, "templates")).sort();
  const render = templates(Object.fromEntries(names.map((each) => [each, read(join("templates", each))])));
  const chart = parse(read("Chart.yaml"));
  const data = {
    Values: merged(parse(read("values.yaml")), given),
    Chart: { Name: chart.name, Version: chart.version, AppVersion: chart.appVersion },
    Release: { Name: name, Namespace: namespace, Service: service },
    Files: read,
  };
  return names
    .filter((each) => each.endsWith(".yaml"))
    .map((each) => render(each, data).trim())
    .filter((text) => text !== "")
    .map((text) => `---\n${text.replace(/\n---$/, "")}\n`)
    .join("");
}

function merged(usual, given) {
  if (!isMap(usual) || !isMap(given)) return given ?? usual;
  const out = { ...usual };
  for (const [name, value] of Object.entries(given)) out[name] = merged(usual[name], value);
  return out;
}

const isMap = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** Those that differ from what is committed. */
function outdatedManifests(isWriting = false) {
  return Object.entries(COMMITTED).flatMap(([file, values]) => {
    const path = join(root, "deploy", "manifests", file);
    const text = `# Made from deploy/chart by scripts/chart.mjs: change that, and run it with --write.\n${renderChart(values, "kvorum", "default", "kubectl")}`;
    if (isWriting) writeFileSync(path, text);
    return readFileSync(path, "utf8") === text ? [] : [file];
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();

function main() {
  const { values } = parseArgs({
    options: {
      values: { type: "string" },
      name: { type: "string", default: "kvorum" },
      namespace: { type: "string", default: "default" },
      write: { type: "boolean", default: false },
      check: { type: "boolean", default: false },
    },
  });
  if (values.write || values.check) {
    const outdated = outdatedManifests(values.write);
    for (const file of outdated)
      console.error(`deploy/manifests/${file} is not what deploy/chart gives: node scripts/chart.mjs --write`);
    process.exitCode = outdated.length === 0 ? 0 : 1;
    return;
  }
  const given = values.values === undefined ? {} : parse(readFileSync(values.values, "utf8"));
  process.stdout.write(renderChart(given, values.name, values.namespace));
}

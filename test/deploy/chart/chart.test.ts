import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parse, parseAllDocuments, stringify } from "yaml";
import { POD_FLAGS } from "../../../src/pod/settings.ts";
import { findProgram, repositoryRoot, run } from "../../harness/programs.ts";

const CHART = join(repositoryRoot, "deploy", "chart");
const KVORUM = { file: process.execPath, args: [join(repositoryRoot, "bin", "kvorum")] };
const MONITORING = { serviceMonitor: true, alerts: true, dashboard: true, labels: { release: "prometheus" } };

/** Between them they take every branch of the templates. */
const VARIANTS: Readonly<Record<string, object>> = {
  "as it comes": {},
  "without TLS, monitored": { tls: { enabled: false }, metrics: MONITORING, networkPolicy: { enabled: false } },
  "with all that can be given": {
    replicas: 5,
    image: { repository: "registry.example/kvorum", tag: "1.0", pullSecrets: [{ name: "pull" }] },
    fullname: "db",
    etcdFlags: ["--quota-backend-bytes=8589934592"],
    env: [{ name: "A", value: "b" }],
    mayFound: false,
    recoverFrom: "db-0",
    restore: { from: "/restore/backup.db", volume: { persistentVolumeClaim: { claimName: "backups" } } },
    backup: {
      mode: "continuous",
      stores: ["/backup", "s3://b/p?endpoint=https://s3"],
      volume: { persistentVolumeClaim: { claimName: "backups" } },
      recipients: ["age1x"],
      credentials: "s3",
      resources: { requests: { memory: "256Mi" } },
    },
    tls: { issuer: { name: "corporate", kind: "ClusterIssuer" }, secret: "certificates", names: ["db.example.com"] },
    users: { name: "root", secret: "root-password" },
    storage: { class: "fast", whenScaled: "Delete" },
    service: { type: "LoadBalancer", annotations: { a: "b" } },
    antiAffinity: "soft",
    nodeSelector: { disk: "ssd" },
    tolerations: [{ key: "db", operator: "Exists" }],
    priorityClassName: "high",
    podAnnotations: { a: "b" },
    podLabels: { team: "a" },
    networkPolicy: { clients: [{ namespaceSelector: {} }] },
    metrics: MONITORING,
  },
  "with certificates that are there and rules of one's own for nodes": {
    tls: { source: "secret", secret: "mine" },
    affinity: { nodeAffinity: {} },
    restore: { store: "s3://b/p", time: "2026-12-01T15:04:05Z", revision: "7" },
    backup: { mode: "scheduled", stores: ["s3://b/p"], credentials: "s3" },
    zoneKey: "",
  },
};

test("the manifests for those without helm are what the chart gives", async () => {
  const { code, stderr } = await run(process.execPath, ["scripts/chart.mjs", "--check"], { cwd: repositoryRoot });
  assert.equal(code, 0, stderr);
});

for (const [what, values] of Object.entries(VARIANTS)) {
  test(`the chart ${what} is whole: every name that is used is there`, async () => {
    const objects = await rendered(values);
    const names = objects.map(({ kind, metadata }) => `${kind}/${metadata.name}`);
    assert.equal(new Set(names).size, names.length, names.join(", "));
    const set = only(objects, "StatefulSet");
    const { spec: pod, metadata } = set.spec.template;
    assert.ok(names.includes(`ServiceAccount/${pod.serviceAccountName}`));
    assert.deepEqual(
      only(objects, "Role").rules[0].resourceNames,
      [set.metadata.name],
      "the pods may read their own set",
    );
    const headless = objects.find(({ metadata: { name } }) => name === set.spec.serviceName);
    assert.equal(headless?.spec.publishNotReadyAddresses, true);
    for (const { spec } of objects.filter(({ kind }) => kind === "Service" || kind === "PodDisruptionBudget")) {
      const selector = spec.selector.matchLabels ?? spec.selector;
      for (const [name, value] of Object.entries(selector)) assert.equal(metadata.labels[name], value);
    }
    assert.equal(only(objects, "PodDisruptionBudget").spec.minAvailable, Math.floor(set.spec.replicas / 2) + 1);

    const [container] = pod.containers;
    const ports = container.ports.map(({ name }: { name: string }) => name);
    for (const { spec } of objects.filter(({ kind }) => kind === "Service"))
      for (const { targetPort } of spec.ports) assert.ok(ports.includes(targetPort), targetPort);
    const volumes = [...pod.volumes, ...set.spec.volumeClaimTemplates.map((claim: Loose) => claim.metadata)];
    const mounts = container.volumeMounts.map(({ name }: { name: string }) => name);
    assert.deepEqual(mounts.toSorted(), volumes.map(({ name }: { name: string }) => name).toSorted());

    for (const { kind, spec } of objects.filter(({ kind }) => kind === "Deployment" || kind === "CronJob")) {
      const backup = (kind === "CronJob" ? spec.jobTemplate.spec : spec).template.spec;
      const [{ args, volumeMounts }] = backup.containers;
      const names = (list: Loose) => list.map(({ name }: { name: string }) => name).toSorted();
      assert.deepEqual(names(volumeMounts), names(backup.volumes));
      const { code, stdout } = await run(KVORUM, ["backup", args[0], "--help"]);
      assert.equal(code, 0);
      for (const flag of args.slice(1)) assert.ok(stdout.includes(`${flag.split("=")[0]} `), flag);
    }

    const variables = container.env.map(({ name }: { name: string }) => name);
    assert.equal(new Set(variables).size, variables.length);
    const known = POD_FLAGS.map(({ name }) => `KVORUM_POD_${name.replaceAll("-", "_").toUpperCase()}`);
    for (const name of variables) assert.ok(!name.startsWith("KVORUM_") || known.includes(name), name);
    for (const { value, valueFrom, name } of container.env)
      assert.ok(valueFrom !== undefined || typeof value === "string", name);
  });
}

test("every value that can be given is in the schema, and every one of the schema can be given", () => {
  const schema = parse(readFileSync(join(CHART, "values.schema.json"), "utf8"));
  const values = parse(readFileSync(join(CHART, "values.yaml"), "utf8"));
  delete schema.properties.global;
  const same = (properties: Loose, given: Loose, path: string) => {
    assert.deepEqual(Object.keys(properties).sort(), Object.keys(given).sort(), path);
    for (const [name, each] of Object.entries<Loose>(properties))
      if (each.properties !== undefined) same(each.properties, given[name], `${path}.${name}`);
  };
  same(schema.properties, values, "values");
});

test("alerts and dashboard ask only for metrics that there are", () => {
  const files = ["alerts.yaml", "dashboard.json"].map((name) => readFileSync(join(CHART, "files", name), "utf8"));
  const asked = new Set(files.flatMap((text) => text.match(/\b(?:etcd|grpc|process|kvorum)_[a-z_]+/g) ?? []));
  // Labels.
  for (const label of ["grpc_method", "grpc_code", "grpc_type"]) asked.delete(label);
  assert.ok(asked.size > 15);
  const sources = readdirSync(join(repositoryRoot, "src"), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts"))
    .map((path) => readFileSync(join(repositoryRoot, "src", path), "utf8"));
  for (const name of asked) {
    // Some are written without the prefix that all of their file have.
    const family = name.replace(/_bucket$/, "").replace(/^etcd_network_/, "");
    assert.ok(
      sources.some((text) => text.includes(family)),
      `the server has no ${name}`,
    );
  }
});

const helm = findProgram(process.env["KVORUM_HELM"] ?? "helm");

test("helm gives the same", { skip: helm === undefined && "there is no helm (KVORUM_HELM)" }, async () => {
  for (const [what, values] of Object.entries(VARIANTS)) {
    await withValues(values, async (file) => {
      const { code, stdout, stderr } = await run(helm!, [
        "template",
        "kvorum",
        CHART,
        "--namespace=default",
        "--kube-version=1.30.0",
        "-f",
        file,
      ]);
      assert.equal(code, 0, stderr);
      const plain = (objects: readonly Loose[]) =>
        objects.map((each) => stringify(each, { sortMapEntries: true })).sort();
      assert.deepEqual(plain(objectsIn(stdout.toString())), plain(await rendered(values)), what);
    });
  }
});

// biome-ignore lint/suspicious/noExplicitAny: objects of Kubernetes, of many kinds
type Loose = any;

async function rendered(values: object): Promise<readonly Loose[]> {
  return await withValues(values, async (file) => {
    const { code, stdout, stderr } = await run(process.execPath, [
      join(repositoryRoot, "scripts", "chart.mjs"),
      "--values",
      file,
    ]);
    assert.equal(code, 0, stderr);
    return objectsIn(stdout.toString());
  });
}

const objectsIn = (text: string): readonly Loose[] =>
  parseAllDocuments(text).flatMap((document) => {
    assert.deepEqual(document.errors, []);
    const value = document.toJS();
    return value === null ? [] : [value];
  });

function only(objects: readonly Loose[], kind: string): Loose {
  const found = objects.filter((each) => each.kind === kind);
  assert.equal(found.length, 1, kind);
  return found[0];
}

async function withValues<T>(values: object, what: (file: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "kvorum-chart-"));
  try {
    const file = join(directory, "values.yaml");
    writeFileSync(file, stringify(values));
    return await what(file);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

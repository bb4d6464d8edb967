import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { parse, parseAllDocuments } from "yaml";
import { kvorum } from "../helpers.ts";

const INVENTORY = `cluster: k8s
loopback: false
members:
  - { name: k8s-m01, address: 10.159.238.10 }
  - { name: k8s-m02, address: 10.159.238.11 }
  - { name: k8s-m03, address: 10.159.238.12 }
`;
const PKI = "etc/kubernetes/pki";
const ON_EVERY_HOST = [
  "apiserver-etcd-client.crt",
  "apiserver-etcd-client.key",
  "etcd/ca.crt",
  "etcd/healthcheck-client.crt",
  "etcd/healthcheck-client.key",
  "etcd/peer.crt",
  "etcd/peer.key",
  "etcd/server.crt",
  "etcd/server.key",
];

describe("files for kubeadm's external etcd", () => {
  let cwd: string;
  const at = (...path: readonly string[]) => join(cwd, "rendered", ...path);

  before(async () => {
    cwd = mkdtempSync(join(tmpdir(), "kvorum-kubeadm-"));
    writeFileSync(join(cwd, "cluster.yml"), INVENTORY);
    const { code, err } = await kvorum({ cwd }, "cluster", "render", "--target=kubeadm");
    assert.equal(code, 0, err);
  });
  after(() => rmSync(cwd, { recursive: true, force: true }));

  test("below /etc/kubernetes/pki is exactly the guide's list; only the first host has the authority's key", () => {
    assert.deepEqual(filesBelow(at("k8s-m01", PKI)), [...ON_EVERY_HOST, "etcd/ca.key"].sort());
    for (const host of ["k8s-m02", "k8s-m03"]) assert.deepEqual(filesBelow(at(host, PKI)), ON_EVERY_HOST);
    for (const key of filesBelow(at("k8s-m01", PKI)).filter((name) => name.endsWith(".key")))
      assert.equal(statSync(at("k8s-m01", PKI, key)).mode & 0o777, 0o600, key);
  });

  test("certificates have the names, issuers and uses of kubeadm's", () => {
    const certificate = (name: string) => new X509Certificate(readFileSync(at("k8s-m02", PKI, `${name}.crt`)));
    const [server, clientAuth] = ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"];
    for (const name of ["etcd/server", "etcd/peer"]) {
      const found = certificate(name);
      assert.equal(found.subject, "CN=k8s-m02");
      for (const host of ["k8s-m02", "localhost"]) assert.equal(found.checkHost(host), host);
      for (const ip of ["10.159.238.11", "127.0.0.1", "::1"]) assert.notEqual(found.checkIP(ip), undefined, ip);
      assert.deepEqual(found.keyUsage.toSorted(), [server, clientAuth]);
    }
    const authority = certificate("etcd/ca");
    for (const [name, subject] of [
      ["etcd/healthcheck-client", "CN=kube-etcd-healthcheck-client"],
      ["apiserver-etcd-client", "CN=kube-apiserver-etcd-client"],
    ] as const) {
      assert.equal(certificate(name).subject, subject);
      assert.deepEqual(certificate(name).keyUsage, [clientAuth]);
      assert.ok(certificate(name).verify(authority.publicKey));
    }
  });

  test("the static pod runs etcd with kubeadm's flags and the guide's", () => {
    const pod = parse(readFileSync(at("k8s-m02", "etc/kubernetes/manifests/etcd.yaml"), "utf8"));
    const [container] = pod.spec.containers;
    assert.equal(
      pod.metadata.annotations["kubeadm.kubernetes.io/etcd.advertise-client-urls"],
      "https://10.159.238.11:2379",
    );
    const flags = new Set<string>(container.command);
    for (const flag of [
      "--name=k8s-m02",
      "--initial-cluster=k8s-m01=https://10.159.238.10:2380,k8s-m02=https://10.159.238.11:2380,k8s-m03=https://10.159.238.12:2380",
      "--initial-cluster-state=new",
      "--listen-client-urls=https://10.159.238.11:2379",
      "--listen-metrics-urls=http://127.0.0.1:2381",
      "--cert-file=/etc/kubernetes/pki/etcd/server.crt",
      "--feature-gates=InitialCorruptCheck=true",
      "--watch-progress-notify-interval=5s",
    ])
      assert.ok(flags.has(flag), flag);
    assert.equal(pod.spec.securityContext.runAsUser, undefined, "etcd's image has root for its user");
    const volumes = pod.spec.volumes.map(({ name }: { name: string }) => name);
    assert.deepEqual(container.volumeMounts.map(({ name }: { name: string }) => name).toSorted(), volumes.toSorted());
  });

  test("kubeadm's configuration is the guide's", () => {
    const [init, cluster] = parseAllDocuments(readFileSync(at("k8s-m03", "root/kubeadmcfg.yaml"), "utf8")).map((each) =>
      each.toJS(),
    );
    assert.deepEqual(init, {
      apiVersion: "kubeadm.k8s.io/v1beta4",
      kind: "InitConfiguration",
      nodeRegistration: { name: "k8s-m03" },
      localAPIEndpoint: { advertiseAddress: "10.159.238.12" },
    });
    const { serverCertSANs, extraArgs } = cluster.etcd.local;
    assert.deepEqual(serverCertSANs, ["10.159.238.12"]);
    assert.deepEqual(
      extraArgs.map(({ name }: { name: string }) => name).toSorted(),
      "advertise-client-urls initial-advertise-peer-urls initial-cluster initial-cluster-state listen-client-urls listen-peer-urls name".split(
        " ",
      ),
    );
  });

  test("other images get their flags and their user, and the key of the authority stays here when that is wanted", async () => {
    const other = join(cwd, "other");
    mkdirSync(other);
    const image = "kubeadm: { image: kvorum:0.1.0, ca-key-on: none, config-api: v1beta3 }\n";
    writeFileSync(join(other, "cluster.yml"), INVENTORY + image);
    const { code, err } = await kvorum({ cwd: other }, "cluster", "render", "--target=kubeadm");
    assert.equal(code, 0, err);
    const pod = parse(readFileSync(join(other, "rendered/k8s-m01/etc/kubernetes/manifests/etcd.yaml"), "utf8"));
    assert.equal(pod.spec.securityContext.runAsUser, 0, "the directories are root's");
    assert.deepEqual(filesBelow(join(other, "rendered/k8s-m01", PKI)), ON_EVERY_HOST);
    writeFileSync(join(other, "cluster.yml"), INVENTORY + image.replace("none", "k8s-m09"));
    const refused = await kvorum({ cwd: other }, "cluster", "check");
    assert.match(refused.err, /kubeadm.ca-key-on is k8s-m09, which is no member/);
  });
});

test("the hosts get what differs, manifests one after the other, and certificates near their end are made again", async () => {
  const cwd = mkdtempSync(join(tmpdir(), "kvorum-kubeadm-"));
  try {
    writeFileSync(join(cwd, "cluster.yml"), INVENTORY);
    // A host is a directory, in which its files are looked for.
    mkdirSync(join(cwd, "bin"));
    writeFileSync(join(cwd, "bin", "ssh"), SSH);
    chmodSync(join(cwd, "bin", "ssh"), 0o755);
    const surroundings = {
      cwd,
      env: { PATH: `${join(cwd, "bin")}:${process.env["PATH"]}`, HOSTS: join(cwd, "hosts") },
    };
    const all = await kvorum(surroundings, "cluster", "kubeadm", "--dry-run");
    assert.equal(all.code, 1, all.err);
    assert.equal(all.out.match(/k8s-m0\d: write /g)?.length, 3 * 13 + 1);
    await kvorum(surroundings, "cluster", "render", "--target=kubeadm", "--out=hosts");
    const none = await kvorum(surroundings, "cluster", "kubeadm", "--dry-run");
    assert.deepEqual([none.code, none.out], [0, "nothing differs\n"], none.err);

    const later = await kvorum({ ...surroundings, laterMs: 340 * 24 * 3_600_000 }, "cluster", "kubeadm", "--dry-run");
    assert.match(later.out, /renewed certificate members\/k8s-m01\/server.crt/);
    assert.match(later.out, /k8s-m01: write \/etc\/kubernetes\/pki\/etcd\/server.key\n/);
    assert.doesNotMatch(later.out, /manifests|kubelet/);
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
});

/** Of the last arguments it takes the host's address, and gives files of the tree for that host's. */
const SSH = `#!/bin/sh
while [ "$1" != -- ]; do shift; done
case $2 in *.10) n=1 ;; *.11) n=2 ;; *.12) n=3 ;; esac
sed "s#'/#'$HOSTS/k8s-m0$n/#g; s#stat -c %a:%U#stat -c %a:root#" | sh -s
`;

const filesBelow = (dir: string): string[] =>
  readdirSync(dir, { recursive: true, encoding: "utf8" })
    .filter((path) => statSync(join(dir, path)).isFile())
    .sort();

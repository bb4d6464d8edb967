#!/usr/bin/env bash
# A member by file: examples/etcd.conf.yml. Its data directory, one.etcd, is relative to where the member is started.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
data=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; rm -rf "$data"' EXIT

cd "$data"
"$root/bin/etcd" --config-file "$root/examples/etcd.conf.yml" 2> log &

# The first command waits until the member serves.
export ETCDCTL_ENDPOINTS=127.0.0.1:12379 ETCDCTL_DIAL_TIMEOUT=60s ETCDCTL_COMMAND_TIMEOUT=60s
"$root/bin/etcdctl" put greeting "hello from a file"
"$root/bin/etcdctl" get greeting
"$root/bin/etcdctl" member list -w table
ls -d one.etcd

#!/usr/bin/env bash
# Users and roles: who may read and write which keys, and what those are told who may not.
set -euo pipefail
cd "$(dirname "$0")/.."
data=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; rm -rf "$data"' EXIT

bin/etcd --data-dir "$data/member" --listen-peer-urls http://127.0.0.1:12380 \
  --listen-client-urls http://127.0.0.1:12379 --advertise-client-urls http://127.0.0.1:12379 2> "$data/log" &
# The first command waits until the member serves.
export ETCDCTL_ENDPOINTS=127.0.0.1:12379 ETCDCTL_DIAL_TIMEOUT=60s ETCDCTL_COMMAND_TIMEOUT=60s

# root may do everything; authentication cannot be turned on without him.
bin/etcdctl user add root:secret
bin/etcdctl user grant-role root root

# Alice reads and writes everything below app/, Bob only reads it.
bin/etcdctl role add writer
bin/etcdctl role grant-permission writer readwrite app/ --prefix
bin/etcdctl role add reader
bin/etcdctl role grant-permission reader read app/ --prefix
bin/etcdctl user add alice:wonderland
bin/etcdctl user grant-role alice writer
bin/etcdctl user add bob:builder
bin/etcdctl user grant-role bob reader
bin/etcdctl auth enable

bin/etcdctl --user alice:wonderland put app/color blue
bin/etcdctl --user bob:builder get app/color
echo "what is refused:"
if bin/etcdctl --user bob:builder put app/color red; then exit 1; fi
if bin/etcdctl --user alice:wonderland get other; then exit 1; fi
if bin/etcdctl --user alice:wrong get app/color; then exit 1; fi

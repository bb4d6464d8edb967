#!/usr/bin/env bash
# Three members on this machine: what is written at one is read at another; the leader is killed, the others go on; it
# comes back and has what was written without it.
set -euo pipefail
cd "$(dirname "$0")/.."
data=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; rm -rf "$data"' EXIT

members=m1=http://127.0.0.1:12380,m2=http://127.0.0.1:22380,m3=http://127.0.0.1:32380
endpoints=127.0.0.1:12379,127.0.0.1:22379,127.0.0.1:32379
declare -A pids
export ETCDCTL_DIAL_TIMEOUT=30s ETCDCTL_COMMAND_TIMEOUT=30s

start() { # start NUMBER
  bin/etcd --name "m$1" --data-dir "$data/m$1" --initial-cluster $members --initial-cluster-token example \
    --listen-peer-urls "http://127.0.0.1:${1}2380" --initial-advertise-peer-urls "http://127.0.0.1:${1}2380" \
    --listen-client-urls "http://127.0.0.1:${1}2379" --advertise-client-urls "http://127.0.0.1:${1}2379" 2>> "$data/m$1.log" &
  pids[$1]=$!
}

healthy() { # healthy ENDPOINTS: waits until all of them serve, a minute at most
  for _ in {1..60}; do
    if bin/etcdctl --endpoints "$1" endpoint health &> /dev/null; then return; fi
    sleep 1
  done
  tail -n 5 "$data"/*.log >&2
  return 1
}

for i in 1 2 3; do start $i; done
healthy $endpoints

bin/etcdctl --endpoints 127.0.0.1:12379 put greeting hello
bin/etcdctl --endpoints 127.0.0.1:32379 get greeting
bin/etcdctl --endpoints $endpoints endpoint status -w table

# Columns of the simple format: endpoint, id, version, …; the ninth says who leads.
leader=$(bin/etcdctl --endpoints $endpoints endpoint status | awk -F', ' '$9 == "true" { print $1 }')
number=${leader#127.0.0.1:} number=${number%2379}
rest=$(tr , '\n' <<< $endpoints | grep -v "$leader" | paste -sd,)

echo "killing m$number, the leader"
kill -9 "${pids[$number]}"
healthy "$rest"
bin/etcdctl --endpoints "$rest" put greeting "hello without m$number"

echo "starting m$number again"
start "$number"
healthy $endpoints
bin/etcdctl --endpoints "$leader" get greeting

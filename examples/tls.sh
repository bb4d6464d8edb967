#!/usr/bin/env bash
# TLS with certificates of an authority of one's own: clients have to show one, too. Needs openssl.
set -euo pipefail
cd "$(dirname "$0")/.."
data=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; rm -rf "$data"' EXIT

# The authority, a certificate for the server with the names and addresses it is reached by, and one for a client.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
  -subj /CN=example-ca -keyout "$data/ca.key" -out "$data/ca.crt" 2> /dev/null
certificate() { # certificate NAME USAGE SUBJECT_ALT_NAME
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" \
    -keyout "$data/$1.key" -out "$data/$1.csr" 2> /dev/null
  printf 'extendedKeyUsage=%s\nsubjectAltName=%s\n' "$2" "$3" > "$data/$1.ext"
  openssl x509 -req -in "$data/$1.csr" -days 30 -CA "$data/ca.crt" -CAkey "$data/ca.key" -CAcreateserial \
    -extfile "$data/$1.ext" -out "$data/$1.crt" 2> /dev/null
}
certificate server serverAuth IP:127.0.0.1,DNS:localhost
certificate client clientAuth DNS:client

bin/etcd --data-dir "$data/member" \
  --listen-client-urls https://127.0.0.1:12379 --advertise-client-urls https://127.0.0.1:12379 \
  --listen-peer-urls http://127.0.0.1:12380 \
  --cert-file "$data/server.crt" --key-file "$data/server.key" \
  --client-cert-auth --trusted-ca-file "$data/ca.crt" 2> "$data/log" &

etcdctl=(bin/etcdctl --endpoints https://127.0.0.1:12379 --cacert "$data/ca.crt")
with_certificate=("${etcdctl[@]}" --cert "$data/client.crt" --key "$data/client.key" --dial-timeout 60s --command-timeout 60s)
"${with_certificate[@]}" put greeting "hello over TLS"
"${with_certificate[@]}" get greeting

echo "without a certificate:"
if "${etcdctl[@]}" --command-timeout 2s get greeting; then exit 1; fi
grep -q "rejected connection on client endpoint" "$data/log" && echo "the member's log says who was refused, and why"

#!/bin/sh
# A StatefulSet's script for the pods of an etcd cluster: "pod.sh start" is the container, "pod.sh pre-stop" its hook before the
# end. The first INITIAL_SIZE pods form the cluster, and keep their data across restarts. Later ones follow the size of the set:
# each start joins as a new member with an empty volume, and each end leaves the cluster.
#
# POD_NAME ends in the number of the pod, CLIENT_URLS and PEER_URLS are those of all pods by number, VOLUME is the pod's directory.
set -eu

number=${POD_NAME##*-}
client_url=$(echo "$CLIENT_URLS" | cut -d' ' -f$((number + 1)))
peer_url=$(echo "$PEER_URLS" | cut -d' ' -f$((number + 1)))
ETCDCTL_ENDPOINTS=$(echo "$CLIENT_URLS" | cut -d' ' -f-"$INITIAL_SIZE" | tr ' ' ,)
export ETCDCTL_ENDPOINTS

is_founder() { [ "$number" -lt "$INITIAL_SIZE" ]; }

founders() {
  i=0
  for url in $PEER_URLS; do
    [ "$i" -eq 0 ] || [ "$i" -ge "$INITIAL_SIZE" ] || printf ,
    [ "$i" -ge "$INITIAL_SIZE" ] || printf '%s-%s=%s' "${POD_NAME%-*}" "$i" "$url"
    i=$((i + 1))
  done
}

# etcd refuses it until enough of the others have been connected for five seconds.
leave() {
  members=$(etcdctl member list) || return 1
  id=$(echo "$members" | awk -F', ' -v url="$peer_url" '$4 == url { print $1 }')
  [ -z "$id" ] || etcdctl member remove "$id" || return 1
  rm -rf "${VOLUME:?}"/*
}

serve() {
  exec etcd --name "$POD_NAME" --data-dir "$VOLUME/data" \
    --listen-client-urls "$client_url" --advertise-client-urls "$client_url" \
    --listen-peer-urls "$peer_url" --initial-advertise-peer-urls "$peer_url" "$@"
}

case $1 in
  start)
    if is_founder; then serve --initial-cluster "$(founders)" --initial-cluster-token pods; fi
    # As it refuses a new member.
    until leave && joined=$(etcdctl member add "$POD_NAME" --peer-urls="$peer_url"); do sleep 1; done
    eval "$(echo "$joined" | grep ^ETCD_INITIAL_CLUSTER)"
    serve --initial-cluster "$ETCD_INITIAL_CLUSTER" --initial-cluster-state "$ETCD_INITIAL_CLUSTER_STATE"
    ;;
  pre-stop) is_founder || until leave; do sleep 1; done ;;
esac

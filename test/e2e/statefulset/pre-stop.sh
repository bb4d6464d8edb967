HOSTNAME=$(hostname)

member_hash() {
    etcdctl member list | grep http://${HOSTNAME}.${SET_NAME}.${CLUSTER_NAMESPACE}:2380 | cut -d':' -f1 | cut -d'[' -f1
}

eps() {
    EPS=""
    for i in $(seq 0 $((${INITIAL_CLUSTER_SIZE} - 1))); do
        EPS="${EPS}${EPS:+,}http://${SET_NAME}-${i}.${SET_NAME}.${CLUSTER_NAMESPACE}:2379"
    done
    echo ${EPS}
}

export ETCDCTL_ENDPOINTS=$(eps)

SET_ID=${HOSTNAME##*-}
# Removing member from cluster
if [ "${SET_ID}" -ge ${INITIAL_CLUSTER_SIZE} ]; then
    echo "Removing ${HOSTNAME} from etcd cluster"
    if [ "${ETCDAPI_VERSION}" -eq 3 ]; then
        ETCDCTL_API=3 etcdctl --user=root:${ROOT_PASSWORD} member remove $(member_hash)
    else
        etcdctl --username=root:${ROOT_PASSWORD} member remove $(member_hash)
    fi
    if [ $? -eq 0 ]; then
        # Remove everything otherwise the cluster will no longer scale-up
        rm -rf /var/run/etcd/*
    fi
fi

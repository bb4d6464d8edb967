/** A first inventory with comments, from which an operator goes on. */
export interface FirstMember {
  readonly name: string;
  readonly address: string;
}

export function firstInventory(cluster: string, members: readonly FirstMember[]): string {
  const list = members.map(({ name, address }) => `  - name: ${name}\n    address: ${yamlText(address)}\n`).join("");
  return `# yaml-language-server: $schema=./cluster.schema.json
# What this cluster is to be. "kvorum cluster check" says what is wrong with it, "kvorum cluster render" writes every file
# for the hosts. What is commented out shows the default, unless it says otherwise.

cluster: ${cluster}
# token: ${cluster}                 # initial-cluster-token

members:
${list}    # ssh: root@etcd-1.example.com  # how ssh reaches the host; the address when absent
    # zone: a                       # a warning when one zone has a majority
    # names: [etcd-1.example.com]   # more names for the certificates; none by default

# program: /usr/local/bin/etcd      # on the hosts
# copy: ./kvorum-0.1.0-linux-{arch}.tar.gz # local programs that are copied there, of kvorum or stock; none by default
# signed-by: release.pub            # whose key signed the SHA256SUMS beside it; not asked for by default
# style: conf                       # conf (conf.yml), environment (a file of variables) or flags (in the unit)
# user: etcd
# service: etcd

# directories:
#   data: /var/lib/etcd
#   wal: /var/lib/etcd-wal          # on a disk of its own; with the data by default
#   config: /etc/etcd
#   releases: /opt/etcd             # copied programs; "program" is a link to one of them

# ports:
#   client: 2379
#   peer: 2380
# authentication: users.yml         # users, passwords and what they may do, mode 0600; none by default
# loopback: true                    # serve clients on 127.0.0.1 too

# tuning:                           # etcd's defaults; for members far apart, raise both times alike
#   heartbeat-interval: 100         # ms: about the round trip between members
#   election-timeout: 1000          # ms: ten times that
#   quota-backend-bytes: 2147483648
#   max-request-bytes: 1572864
#   auto-compaction-mode: periodic
#   auto-compaction-retention: 1h   # none by default

# certificates:
#   directory: pki                  # put an authority of your own there as ca.crt and ca.key
#   algorithm: ecdsa-p256
#   days: 365
#   ca-days: 3650
#   shared: false                   # one certificate for all members
`;
}

/** IPv6 addresses have colons, which mean something in YAML. */
const yamlText = (value: string): string => (/^[\w.-]+$/.test(value) ? value : JSON.stringify(value));

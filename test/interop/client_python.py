"""Uses an etcd server through the Python client `etcd3` (python-etcd3). Arguments: host, port. Fails by assertion."""

import sys

import etcd3

host, port = sys.argv[1], int(sys.argv[2])
client = etcd3.client(host=host, port=port, timeout=10)

client.put("py/a", "1")
client.put("py/b", "2")
value, meta = client.get("py/a")
assert value == b"1" and meta.key == b"py/a" and meta.version == 1, (value, meta)
assert client.get("py/none") == (None, None)
assert [v for v, _ in client.get_prefix("py/", sort_order="descend")] == [b"2", b"1"]
assert client.put_if_not_exists("py/a", "x") is False
assert client.replace("py/a", "1", "3") is True
assert client.delete("py/b") is True and client.delete("py/b") is False

succeeded, responses = client.transaction(
    compare=[client.transactions.value("py/a") == "3", client.transactions.version("py/a") > 0],
    success=[client.transactions.put("py/c", "done"), client.transactions.get("py/a")],
    failure=[client.transactions.delete("py/a")],
)
assert succeeded and responses[1][0][0] == b"3", responses

lease = client.lease(100)
client.put("py/leased", "x", lease=lease)
assert 90 < lease.remaining_ttl <= 100 and lease.keys == [b"py/leased"], lease.keys
assert client.refresh_lease(lease.id)
lease.revoke()
assert client.get("py/leased") == (None, None)

events, cancel = client.watch_prefix("py/watched/", prev_kv=True)
client.put("py/watched/1", "one")
client.delete("py/watched/1")
first, second = next(events), next(events)
assert isinstance(first, etcd3.events.PutEvent) and first.value == b"one", first
assert isinstance(second, etcd3.events.DeleteEvent) and second.prev_value == b"one", second
cancel()

with client.lock("py-lock", ttl=10) as lock:
    assert lock.is_acquired()

try:
    client.compact(4711)
    raise AssertionError("a future revision was compacted")
except etcd3.exceptions.Etcd3Exception:
    pass
except Exception as error:  # The library passes on gRPC errors that it does not know.
    assert "future revision" in str(error), error

client.compact(meta.mod_revision)
assert client.status().version.startswith("3.")
assert [member.name for member in client.members] == ["default"]
assert client.hash() > 0
client.defragment()
client.delete_prefix("py/")
assert list(client.get_prefix("py/")) == []
client.close()
print("passed")

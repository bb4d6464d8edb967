"""A bad network between network namespaces, where the kernel has no netem: packets are delayed, and some are lost.

    weather.py DELAY_MS JITTER_MS LOSS_PERCENT NAMESPACE=ADDRESS ...

Creates an interface `weather` in each namespace, which the caller brings up and routes through. A packet sent into one
leaves the one in the namespace of its destination. Prints a line when all exist; ends, with its interfaces, when it is
killed or its standard input is closed.
"""
import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
PACKET_MAX = 65536
# Packets in flight at a time; further ones are lost, as on a full link.
QUEUE_MAX = 20000

libc = ctypes.CDLL(None, use_errno=True)


def interface_in(namespace):
    fd = os.open("/run/netns/" + namespace, os.O_RDONLY)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns " + namespace)
    os.close(fd)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", b"weather", IFF_TUN | IFF_NO_PI))
    return tun


def main():
    delay, jitter, loss = (float(text) for text in sys.argv[1:4])
    by_address = {}
    for pair in sys.argv[4:]:
        namespace, address = pair.split("=")
        by_address[socket.inet_aton(address)] = interface_in(namespace)
    interfaces = list(by_address.values())
    print("ready", flush=True)
    queue = []
    count = 0
    while True:
        wait = None if not queue else max(0.0, queue[0][0] - time.monotonic())
        readable, _, _ = select.select(interfaces + [0], [], [], wait)
        now = time.monotonic()
        for fd in readable:
            if fd == 0:
                if not os.read(0, 1024):
                    return
                continue
            while True:
                try:
                    packet = os.read(fd, PACKET_MAX)
                except BlockingIOError:
                    break
                to = by_address.get(packet[16:20]) if packet[0] >> 4 == 4 else None
                if to is None or len(queue) >= QUEUE_MAX or random.random() * 100 < loss:
                    continue
                due = now + (delay + random.uniform(-jitter, jitter)) / 1000
                count += 1
                heapq.heappush(queue, (due, count, to, packet))
        while queue and queue[0][0] <= now:
            _, _, to, packet = heapq.heappop(queue)
            try:
                os.write(to, packet)
            except OSError:
                pass  # The interface is not up yet, or its queue is full: the packet is lost.


main()

"""How the ranks of one machine reach each other: shared memory, TCP, or links with a delay and a rate; Linux.

A link is a namespace of the network with a TUN device, and a process that carries packets from device to device: each
leaves when those before it have, at the rate, and arrives after the delay.  (Linux' netem does the same where the
kernel has it.)  That takes a part of a processor, which two ranks on two processors lack, and some 50 microseconds a
message beside the delay: measure what a link does with ``ranks.py --exchanges``.  It wants root.
"""

import argparse
import ctypes
import fcntl
import heapq
import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
PR_SET_TIMERSLACK = 29
#: What a device passes on in one piece, as network cards take it from the system.
PACKET_BYTES = 60_000
DEVICE = "fastnn"
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "MB/s": 1e6, "GB/s": 1e9}
#: Called as ssh is, with a host that is the name of a namespace.
AGENT = '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nhost=$1; shift\nexec ip netns exec "$host" sh -c "$*"\n'
#: MPI's own settings: MPICH's and Open MPI's.
BY_TCP = ("MPIR_CVAR_NOLOCAL=1", "UCX_TLS=tcp,self", "OMPI_MCA_pml=ob1", "OMPI_MCA_btl=tcp,self")


def address(rank):
    """Return the address of a rank, which is also the name of its namespace."""
    return f"10.77.0.{rank + 1}"


def quantity(text):
    """Return the number of a text such as "20us" or "1.15GB/s" in seconds, or in bytes a second."""
    number, unit = re.fullmatch(r"([\d.]+)([a-zA-Z/]+)", text).groups()
    return float(number) * UNITS[unit]


class Network:
    """How processes are started so that they reach each other in one of these ways.

    Parameters
    ----------
    text : str
        "shared", "nolocal" (MPI by TCP), or "DELAY:RATE", such as "20us:1.15GB/s".
    size : int
        Number of ranks.
    folder : path-like
        For the agent that starts processes in namespaces.
    """

    def __init__(self, text, size, folder):
        self._text, self._size, self._agent = text, size, Path(folder, "agent")
        self._has_links = ":" in text
        self._stack = ExitStack()

    def __enter__(self):
        if self._has_links:
            self._agent.write_text(AGENT, encoding="ascii")
            self._agent.chmod(0o755)
            command = [sys.executable, __file__, str(self._size), *self._text.split(":")]
            carrier = subprocess.Popen(command, stdout=subprocess.PIPE)
            self._stack.callback(carrier.wait)
            self._stack.callback(carrier.terminate)
            if not carrier.stdout.readline():
                raise OSError("no links")
        return self

    def __exit__(self, *_):
        self._stack.close()

    def on(self, rank, command):
        """Return a command that starts a process of a rank, for Gloo."""
        if not self._has_links:
            return ["env", "GLOO_SOCKET_IFNAME=lo", *command]
        return ["ip", "netns", "exec", address(rank), "env", f"GLOO_SOCKET_IFNAME={DEVICE}", *command]

    def mpiexec(self, path, n, command):
        """Return a command that starts so many ranks by MPI."""
        is_open_mpi = Path(path).with_name("prterun").exists()
        started = [path, "-n", str(n), *(["--oversubscribe", "--bind-to", "none"] if is_open_mpi else [])]
        if self._text == "shared":
            return [*started, *command]
        if not self._has_links:
            return ["env", *BY_TCP, *started, *command]
        hosts = ",".join(address(rank) for rank in range(n))
        if is_open_mpi:  # its ranks start, but the first exchange never ends
            raise OSError("links are for MPICH only")
        started += ["-launcher", "ssh", "-launcher-exec", str(self._agent), "-hosts", hosts, "-localhost", address(0)]
        return ["ip", "netns", "exec", address(0), "env", *BY_TCP, f"UCX_NET_DEVICES={DEVICE}", *started, *command]


def ip(*arguments):
    """Call ip."""
    subprocess.run(["ip", *arguments], check=True)


def device(rank):
    """Make a rank's namespace with its device; return the file on which its packets come and go."""
    name, file = f"{DEVICE}{rank}", os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    namespace = address(rank)
    ip("netns", "add", namespace)
    ip("link", "set", name, "netns", namespace, "name", DEVICE)
    ip("-n", namespace, "address", "add", f"{namespace}/24", "dev", DEVICE)
    ip("-n", namespace, "link", "set", DEVICE, "mtu", str(PACKET_BYTES), "txqueuelen", "1000", "up")
    ip("-n", namespace, "link", "set", "lo", "up")
    return file


def carry(files, delay, rate):
    """Carry packets between the devices, for ever."""
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)  # or sleep takes 50 microseconds longer
    free, waiting, n_packets = dict.fromkeys(files, 0.0), [], 0
    while True:
        timeout = max(0.0, waiting[0][0] - time.perf_counter()) if waiting else None
        for file in select.select(files, (), (), timeout)[0]:
            packet = os.read(file, 1 << 16)
            to = packet[19] - 1
            if packet[0] >> 4 == 4 and to < len(files):  # not IPv6
                free[file] = max(time.perf_counter(), free[file]) + len(packet) / rate
                n_packets += 1
                heapq.heappush(waiting, (free[file] + delay, n_packets, files[to], packet))
        while waiting and waiting[0][0] <= time.perf_counter():
            _, _, to, packet = heapq.heappop(waiting)
            os.write(to, packet)


def main():
    """Make namespaces for so many ranks, say so, and carry their packets until told to end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", type=int)
    parser.add_argument("delay", type=quantity)
    parser.add_argument("rate", type=quantity)
    options = parser.parse_args()
    names = [address(rank) for rank in range(options.size)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        files = [device(rank) for rank in range(options.size)]
        print("ready", flush=True)
        carry(files, options.delay, options.rate)
    finally:
        for name in names:
            ip("netns", "delete", name)


if __name__ == "__main__":
    main()

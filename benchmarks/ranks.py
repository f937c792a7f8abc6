"""One process with several threads, as many ranks with a thread each, and PyTorch's DistributedDataParallel, in turn.

    python benchmarks/ranks.py                                         # MPI's mpiexec must be on the path; ten minutes
    python benchmarks/ranks.py --cells 5 7 --dtype float64 --output ranks.json
    python benchmarks/ranks.py --network nolocal                       # ranks of one machine, by TCP
    python benchmarks/ranks.py --network 20us:1.15GB/s                 # each rank behind a link of its own, see link.py
    python benchmarks/ranks.py --exchanges                             # the collectives alone, from 64 bytes to 4 MB

All processes of a cell are started once, stay, and wait on a socket, which takes no processor, until the program asks
them for epochs: so that they take turns in one run, after a pause, and the best of all rounds counts.  Each rank is
bound to a processor of its own.  Beside the ranks stand one process with one thread, and one with all threads whose
communicator has size 1.  A fit counts the seconds of its epochs itself; of ranks, the slowest counts.

DistributedDataParallel sends with Gloo what the ranks of fastnn send with MPI, and takes the same rows in the same
batches: each rank its part of each.
"""

import argparse
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from contextlib import ExitStack, suppress
from multiprocessing.connection import Client, Connection
from pathlib import Path

import link
import numpy as np

from fastnn.benchmark.cells import CELLS
from fastnn.benchmark.peers import FitEpochs, make_trainer, orders, start, torch_weight
from fastnn.benchmark.timing import PAUSE, TURN, load_rows, timed, tolerance
from fastnn.engine.threads import handover_seconds

LABELS = tuple("13567ACF")
THREADS, ONE_THREAD, ONE_RANK, RANKS, DDP = "threads", "one thread", "one rank", "ranks", "DDP"
KINDS = (THREADS, ONE_THREAD, ONE_RANK, RANKS, DDP)
#: Seconds after which a process that has not answered, or ended, is given up.
PATIENCE = 60
GRACE = 10
#: Bytes of an array of which ranks exchange their parts, and seconds for which it is repeated.
EXCHANGED = (8, 64, 512, 4096, 32768, 262144, 1 << 20, 4 << 20)
EXCHANGE_SECONDS = 0.2
#: PyTorch reduces gradients in buckets of so many MB: one for all of a cell's.
BUCKET_MB = 1000


# In the processes that train.


def bind(rank):
    """Bind this process to one of its processors."""
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[rank % len(processors)]})


def prepare_ddp(cell, X, y):
    """Return an epoch of PyTorch's DistributedDataParallel on this rank's part of each batch.

    As `fastnn.benchmark.peers.prepare_torch` has the batches and the steps.  One bucket, of which the gradients are
    views; the graph is said to be static; losses are added up once an epoch.
    """
    import torch
    from torch import distributed, nn
    from torch.nn.parallel import DistributedDataParallel

    rank, size = distributed.get_rank(), distributed.get_world_size()
    if cell.batch_size % size or cell.rows % cell.batch_size % size:
        raise LookupError("a batch has no equal parts, whose means would be that of the whole")
    torch.manual_seed(0)
    layers = []
    network = start(cell, X.dtype.name)
    for W, b in zip(network.weights, network.biases, strict=True):
        layer = nn.Linear(*W.shape, dtype=torch_weight(W).dtype)
        with torch.no_grad():
            layer.weight.copy_(torch_weight(W))
            layer.bias.copy_(torch.from_numpy(b.copy()))
        layers += [layer, {"tanh": nn.Tanh, "relu": nn.ReLU}[cell.activation]()]
    model = DistributedDataParallel(
        nn.Sequential(*layers[:-1]),
        static_graph=True,
        gradient_as_bucket_view=True,
        bucket_cap_mb=BUCKET_MB,
    )
    if cell.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), cell.learning_rate, fused=True)
    else:
        optimizer = torch.optim.SGD(model.parameters(), cell.learning_rate, foreach=True)
    loss_of, every, data = nn.functional.cross_entropy, orders(cell), (torch.from_numpy(X), torch.from_numpy(y))

    def part(rows):
        return rows[rank * len(rows) // size : (rank + 1) * len(rows) // size]

    in_order = [tuple(map(part, batch)) for batch in zip(*(rows.split(cell.batch_size) for rows in data), strict=True)]

    def batches():
        if not cell.shuffled:
            yield from in_order
            return
        for ids in torch.from_numpy(next(every)).split(cell.batch_size):
            yield tuple(rows.index_select(0, part(ids)) for rows in data)

    def epoch():
        total = torch.zeros((), dtype=data[0].dtype)
        for rows, labels in batches():
            loss = loss_of(model(rows), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.detach() * len(rows)
        distributed.all_reduce(total)
        return -total.item() / cell.rows

    return epoch


def exchanges(comm):
    """Return (collective, bytes of an array that is cut among ranks, seconds) of what a step may exchange."""
    from mpi4py import MPI

    def gather(n):
        whole, counts = np.zeros(n * comm.size, np.uint8), [n] * comm.size
        place = [whole, counts, MPI.BYTE]
        return lambda: comm.Allgatherv(MPI.IN_PLACE, place)

    def gather_pairwise(n):
        # The same as messages between every two ranks.
        whole, counts = np.zeros(n * comm.size, np.uint8), [n] * comm.size
        counts[comm.rank] = 0
        starts = [n * rank for rank in range(comm.size)]
        place = [whole, counts, starts, MPI.BYTE]
        return lambda: comm.Alltoallv([whole, counts, [starts[comm.rank]] * comm.size, MPI.BYTE], place)

    def exchange(n):
        counts = [n] * comm.size
        sent, received = ([np.zeros(n * comm.size, np.uint8), counts, MPI.BYTE] for _ in range(2))
        return lambda: comm.Alltoallv(sent, received)

    found = []
    kinds = {"Allgatherv in place": gather, "Alltoallv as a gather": gather_pairwise, "Alltoallv": exchange}
    for (name, make), n in itertools.product(kinds.items(), EXCHANGED):
        call, best, end, n_calls = make(n // comm.size), float("inf"), time.perf_counter() + EXCHANGE_SECONDS, 1
        while comm.bcast(time.perf_counter() < end or best == float("inf")):
            comm.Barrier()
            begin = time.perf_counter()
            for _ in range(n_calls):
                call()
            seconds = (time.perf_counter() - begin) / n_calls
            best = min(best, seconds)
            n_calls = comm.bcast(max(1, min(1000, int(EXCHANGE_SECONDS / 20 / seconds))))
        found.append((name, n, comm.allreduce(best, MPI.MAX)))
    return found


def serve(connection, prepare, comm=None):
    """Prepare cells and train epochs as the program asks; say how it went."""
    train = None
    for request, *arguments in iter(connection.recv, None):
        try:
            if request == "prepare":
                label, dtype, n_rows = arguments
                cell, train = CELLS[label].first(n_rows), None
                train = prepare(cell, *load_rows(cell, dtype))
                reply = [timed(train)[0] for _ in range(2)], checksum(train)
            elif request == "train":
                reply = timed(train, *arguments)[1]
            else:
                reply = exchanges(comm)
        except Exception as error:
            reply = error
        connection.send(reply)


def checksum(train):
    """Return a checksum of fastnn's parameters."""
    return zlib.crc32(train.network.parameters) if isinstance(train, FastnnEpochs) else None


class FastnnEpochs(FitEpochs):
    """Epochs of a fit, and the network that they train."""

    def __init__(self, trainer, X, y):
        super().__init__(trainer, X, y)
        self.network = trainer.network


def work(kind, address, rank, size, dense):
    """Be one of the processes of a kind."""
    connection, comm = Client(address), None
    if kind in (ONE_RANK, RANKS):
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
        rank = comm.rank
    if kind in (RANKS, DDP):
        bind(rank)
    connection.send(rank)
    if kind == DDP:
        import torch

        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", init_method=f"file://{address}.gloo", rank=rank, world_size=size)
        serve(connection, prepare_ddp)
        torch.distributed.destroy_process_group()
        return
    n_threads = 1 if kind in (RANKS, ONE_THREAD) else size
    settings = {"n_threads": n_threads, "sparse": False if dense else "auto", **({"comm": comm} if comm else {})}
    serve(connection, lambda cell, X, y: FastnnEpochs(make_trainer(cell, X.dtype.name, **settings), X, y), comm)


# In the process that asks them.


class Party:
    """The processes of a kind.

    Parameters
    ----------
    kind : str
    commands : list of list of str
        What to start; mpiexec starts several processes.
    size : int
        How many processes there will be.
    address : str
        Path of the socket at which they report.
    """

    def __init__(self, kind, commands, size, address):
        self.kind = kind
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(size)
            listener.settimeout(PATIENCE)
            self._processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for command in commands]
            self._connections = [Connection(listener.accept()[0].detach()) for _ in range(size)]
        self._connections.sort(key=lambda connection: connection.recv())

    def ask(self, *request):
        """Return the replies of all of them, in the order of ranks."""
        for connection in self._connections:
            connection.send(request)
        return [self._reply(connection) for connection in self._connections]

    def _reply(self, connection):
        if not connection.poll(PATIENCE):
            raise TimeoutError(f"no answer in {PATIENCE} s")
        reply = connection.recv()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def seconds(self, n_epochs):
        """Return the seconds of so many epochs, of the slowest rank."""
        return list(map(max, *self.ask("train", n_epochs), [0.0] * n_epochs))

    def close(self):
        """End the processes."""
        for connection in self._connections:
            with suppress(OSError):  # of a process that is gone
                connection.send(None)
        for process in self._processes:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.terminate()


def started(kind, options, network, folder):
    """Return the party of a kind."""
    alone = kind not in (RANKS, DDP)
    address = str(Path(folder, kind.replace(" ", "-")))
    command = [sys.executable, __file__, "--worker", kind, "--address", address, "--ranks", str(options.ranks)]
    command += ["--dense"] * options.dense
    if alone:
        return Party(kind, [command], 1, address)
    if kind == DDP:
        commands = [network.on(rank, [*command, "--rank", str(rank)]) for rank in range(options.ranks)]
        return Party(kind, commands, options.ranks, address)
    return Party(kind, [network.mpiexec(shutil.which(options.mpiexec), options.ranks, command)], options.ranks, address)


def prepared(parties, label, dtype, n_rows):
    """Prepare a cell's first rows; return the parties that can take part, and whether ranks and threads share bits."""
    taking_part, reached, sums = [], {}, {}
    for party in parties:
        try:
            replies = party.ask("prepare", label, dtype, n_rows)
        except (LookupError, TypeError) as error:
            print(f"{party.kind} is left out of cell {label}: {error}", flush=True)
            continue
        reached[party.kind], sums[party.kind] = replies[0]
        first = next(iter(reached.values()))
        if not np.allclose(reached[party.kind], first, rtol=0, atol=tolerance(CELLS[label], dtype)):
            print(f"{party.kind} is left out of cell {label}: it reached {reached[party.kind]}, not {first}")
            continue
        taking_part.append(party)
    return taking_part, sums.get(RANKS) == sums.get(THREADS)


def measure(parties, rounds):
    """Return the best seconds of an epoch of each party, and those of a cache line from core to core."""
    best = {party.kind: min(party.seconds(1)) for party in parties}
    handovers = []
    for _ in range(rounds):
        handovers.append(handover_seconds() or 0.0)
        for party in parties:
            time.sleep(PAUSE)
            n_epochs = max(1, int(TURN / best[party.kind]))
            best[party.kind] = min(best[party.kind], *party.seconds(n_epochs))
    return best, min(handovers)


def compare(parties, options):
    """Print and return the cells' results."""
    found = {}
    print(f"{options.dtype}, {options.network}: seconds an epoch, and those of threads divided by them")
    for label in options.cells:
        taking_part, same = prepared(parties, label, options.dtype, options.rows)
        best, handover = measure(taking_part, options.rounds)
        found[label] = {"seconds": best, "same bits": same, "handover": handover}
        print(
            f"{label}  " + ", ".join(f"{kind} {s:.5g} ({best[THREADS] / s:.2f})" for kind, s in best.items()),
            f"| DDP / ranks {best[DDP] / best[RANKS]:.2f}" if {DDP, RANKS} <= best.keys() else "",
            f"| {'same' if same else 'other'} bits, {1e9 * handover:.0f} ns from core to core",
            flush=True,
        )
    return found


def show_exchanges(party, options):
    """Print and return how long collectives take."""
    found = party.ask("exchanges")[0]
    print(f"{options.ranks} ranks, {options.network}: microseconds, and MB/s into a rank")
    for name, n_bytes, seconds in found:
        rate = 1e-6 * n_bytes * (1 - 1 / options.ranks) / seconds
        print(f"{name:>21} {n_bytes:>9,} bytes {1e6 * seconds:>10.1f} {rate:>8.0f}", flush=True)
    return found


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=LABELS, choices=CELLS)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--ranks", type=int, default=2, help="and threads of one process")
    parser.add_argument("--rows", type=int, help="only the first of each cell")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--dense", action="store_true", help="fastnn takes rows as dense, as PyTorch does")
    parser.add_argument("--network", default="shared", help="shared, nolocal, or DELAY:RATE, as 20us:1.15GB/s")
    parser.add_argument("--mpiexec", default="mpiexec")
    parser.add_argument("--exchanges", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON")
    for name in ("--worker", "--address"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.address, options.rank, options.ranks, options.dense)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or ranks would go on waiting for each other
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        network = stack.enter_context(link.Network(options.network, options.ranks, folder))
        parties = []
        for kind in (RANKS,) if options.exchanges else options.kinds:
            parties.append(started(kind, options, network, folder))
            stack.callback(parties[-1].close)
        found = show_exchanges(parties[0], options) if options.exchanges else compare(parties, options)
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

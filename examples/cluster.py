"""Run batches in other processes, or on other machines.

The question: what does a second process save, and what becomes of callers whose process dies?

Of each module at the top of the standard library the function with the most branches is found. That is pure Python, of
which a process does one thing at a time. Each module is a call of its own, and no process is bothered for one: those
that wait travel as a batch, and no batch weighs much more than the others. Then one process is killed while it works.

``python examples/cluster.py`` starts a small cluster on this machine; it needs the package ``distributed``, of Dask. It
takes the address of another one, ``python examples/cluster.py tcp://scheduler:8786``, where it kills nothing, and
batchify must be installed. ``python examples/cluster.py processes`` is the same with processes alone, without Dask.
"""

from __future__ import annotations

import ast
import logging
import os
import signal
import sys
import sysconfig
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from batchify import microbatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from distributed import Client

WORKERS = 2
BRANCHES = (ast.BoolOp, ast.ExceptHandler, ast.For, ast.If, ast.IfExp, ast.While, ast.comprehension, ast.match_case)
# Characters in a batch: about a tenth of a second, next to which it costs little to send them somewhere.
ENOUGH = 100_000

T = TypeVar("T")
Tangle: TypeAlias = tuple[int, str]


@microbatch(weigh=len, max_weight=ENOUGH)
def most_tangled(sources: list[str]) -> list[Tangle]:
    """Return, for each module, the number of branches in the function that has the most, and its name."""
    return [max(tangles(ast.parse(source)), default=(0, "")) for source in sources]


def tangles(tree: ast.Module) -> Iterator[Tangle]:
    """Yield how many branches each function has."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield sum(isinstance(part, BRANCHES) for part in ast.walk(node)), node.name


def modules() -> dict[str, str]:
    """Return the source of each module at the top of the standard library of which four or more fit into a batch."""
    folder = Path(sysconfig.get_path("stdlib"))
    sources = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
    return {name: source for name, source in sources.items() if len(source) <= ENOUGH / 4}


class Cluster(Executor):
    """The executor of a client of Dask, which refuses what nobody would answer.

    A client that has lost its scheduler, or that is being closed, takes tasks which it then forgets.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        # Were they pure, Dask would run equal batches once, and give that answer to both.
        self._executor = client.get_executor(pure=False)  # type: ignore[no-untyped-call]  # it has no annotations

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Let a worker call ``fn``."""
        if self._client.status != "running":
            msg = f"the client of the cluster is {self._client.status}"
            raise BrokenExecutor(msg)
        return self._executor.submit(fn, *args, **kwargs)  # type: ignore[no-any-return]  # as above


@contextmanager
def dask(address: str | None) -> Iterator[tuple[Executor, int]]:
    """Provide an executor of the cluster at an address, or of one on this machine, and the number of its workers."""
    from distributed import Client  # noqa: PLC0415  # processes alone do without it

    # Not even errors: to the scheduler, the process that is killed here is one.
    local = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": logging.CRITICAL}
    client = Client(address) if address else Client(**local)  # type: ignore[no-untyped-call]  # as above
    with client:
        if address:
            # Workers of this machine find it where this process does.
            client.upload_file(__file__)
        threads: dict[str, int] = client.nthreads()  # type: ignore[no-untyped-call]  # as above
        yield Cluster(client), sum(threads.values())


@contextmanager
def processes() -> Iterator[tuple[Executor, int]]:
    """Provide a pool of processes, and the number of them."""
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        yield pool, WORKERS


def place(where: str | None) -> AbstractContextManager[tuple[Executor, int]]:
    """Return what provides an executor, as the command line has it."""
    return processes() if where == "processes" else dask(where)


def compare(sources: list[str], executor: Executor, workers: int) -> list[Tangle]:
    """Return the answers from the executor, and print how long that takes, here and there."""
    # Processes are started, and know the function, before time is taken.
    wait([executor.submit(os.getpid) for _ in range(workers)])
    most_tangled.configure(executor=executor, concurrency=workers)
    start = perf_counter()
    expected = most_tangled.__wrapped__(sources)
    between = perf_counter()
    found = most_tangled.map(sources)
    end = perf_counter()
    print(f"{len(sources)} modules, {workers} workers\n")
    print(f"{'in this process':<20}{between - start:>8.2f} s\n{'in the workers':<20}{end - between:>8.2f} s")
    print(f"\n{most_tangled.batch_stats}\n")
    if found != expected:
        sys.exit("answers differ from those of this process")
    return expected


def lose_one(sources: list[str], expected: list[Tangle], executor: Executor) -> None:
    """Kill a process while there is work, and print what becomes of the callers."""
    victim = executor.submit(os.getpid).result()
    calls = [most_tangled.submit(source) for source in sources]
    calls[0].result()
    os.kill(victim, getattr(signal, "SIGKILL", signal.SIGTERM))
    lost = [source for source, call in zip(sources, calls, strict=True) if isinstance(call.exception(), BrokenExecutor)]
    print(f"A process was killed under {len(calls)} calls, {len(lost)} of which failed and were made again.")
    found = dict(zip(lost, ask_again(lost), strict=True))
    if expected != [found.get(source) or call.result() for source, call in zip(sources, calls, strict=True)]:
        sys.exit("answers differ after a process was killed")


def ask_again(lost: list[str]) -> list[Tangle]:
    """Return the answers that a pool of processes owes, all of which end if one does; Dask runs batches again."""
    if not lost:
        return []
    with processes() as (another, _):
        most_tangled.configure(executor=another)
        return most_tangled.map(lost)


def main(where: str | None = None) -> None:
    """Find the tangled functions here and there, compare, and kill a process if it is ours."""
    found = modules()
    sources = list(found.values())
    with place(where) as (executor, workers):
        expected = compare(sources, executor, workers)
        if where in {None, "processes"}:
            lose_one(sources, expected, executor)
    print(f"Answers are equal to those of this process for every module ({len(sources)} of {len(sources)}).\n")
    for (branches, function), module in sorted(zip(expected, found, strict=True), reverse=True)[:3]:
        print(f"{branches:>5} branches in {module}.{function}")


if __name__ == "__main__":
    # A worker has a __main__ of its own. What it is sent must go by the name that the module has there.
    import cluster as importable

    importable.main(*sys.argv[1:2])

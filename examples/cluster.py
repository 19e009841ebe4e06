"""Run batches in other processes or on other machines.

This example shows how much time a second process saves, and which answers callers get when a process dies.

The batch function finds the function with the most branches in each module of the standard library. It is pure Python
code, which a process runs on one thread at a time. Each module is one call. Waiting calls share batches of about equal
length. At the end, the example kills a process while it works.

``python examples/cluster.py`` starts a small Dask cluster on this machine; it needs the package ``distributed``.
``python examples/cluster.py tcp://scheduler:8786`` uses another cluster, which needs batchify, and kills no process.
``python examples/cluster.py processes`` uses a pool of processes, without Dask.
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
# Maximum characters in a batch. They take about a tenth of a second, far longer than it takes to send them.
MAX_CHARACTERS = 100_000

T = TypeVar("T")
# The number of branches in a function, and its name.
Complexity: TypeAlias = tuple[int, str]


@microbatch(weigh=len, max_weight=MAX_CHARACTERS)
def most_complex(sources: list[str]) -> list[Complexity]:
    """Return the most complex function of each module."""
    return [max(complexities(ast.parse(source)), default=(0, "")) for source in sources]


def complexities(tree: ast.Module) -> Iterator[Complexity]:
    """Yield the complexity of each function."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield sum(isinstance(part, BRANCHES) for part in ast.walk(node)), node.name


def modules() -> dict[str, str]:
    """Return the source of each top-level module of the standard library that is at most a quarter of a batch."""
    folder = Path(sysconfig.get_path("stdlib"))
    sources = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
    return {name: source for name, source in sources.items() if len(source) <= MAX_CHARACTERS / 4}


class DaskExecutor(Executor):
    """The executor of a Dask client, which refuses calls that Dask would never answer.

    A client that has lost its scheduler, or is being closed, accepts tasks and then forgets them.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        # With pure tasks, Dask would run equal batches only once and use the answer for both.
        self._executor = client.get_executor(pure=False)  # type: ignore[no-untyped-call]  # it has no annotations

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call ``fn`` in a worker."""
        if self._client.status != "running":
            msg = f"the Dask client is {self._client.status}"
            raise BrokenExecutor(msg)
        return self._executor.submit(fn, *args, **kwargs)  # type: ignore[no-any-return]  # as above


@contextmanager
def dask(address: str | None) -> Iterator[tuple[Executor, int]]:
    """Provide an executor of the cluster at an address, or of a new local cluster, and its number of workers."""
    from distributed import Client  # noqa: PLC0415  # a pool of processes does not need it

    # The scheduler would log the killed process as an error.
    local = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": logging.CRITICAL}
    client = Client(address) if address else Client(**local)  # type: ignore[no-untyped-call]  # as above
    with client:
        if address:
            # Local workers find this module without an upload.
            client.upload_file(__file__)
        threads: dict[str, int] = client.nthreads()  # type: ignore[no-untyped-call]  # as above
        yield DaskExecutor(client), sum(threads.values())


@contextmanager
def processes() -> Iterator[tuple[Executor, int]]:
    """Provide a pool of processes and its number of workers."""
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        yield pool, WORKERS


def executor_for(where: str | None) -> AbstractContextManager[tuple[Executor, int]]:
    """Return a context manager that provides the executor named on the command line and its number of workers."""
    return processes() if where == "processes" else dask(where)


def compare(sources: list[str], executor: Executor, workers: int) -> list[Complexity]:
    """Return the results, and print the time that they take in this process and in the workers."""
    # All processes have started before the time is measured.
    wait([executor.submit(os.getpid) for _ in range(workers)])
    most_complex.configure(executor=executor, concurrency=workers)
    start = perf_counter()
    expected = most_complex.__wrapped__(sources)
    between = perf_counter()
    results = most_complex.map(sources)
    end = perf_counter()
    print(f"{len(sources)} modules, {workers} workers\n")
    print(f"{'in this process':<20}{between - start:>8.2f} s\n{'in the workers':<20}{end - between:>8.2f} s")
    print(f"\n{most_complex.batch_stats}\n")
    if results != expected:
        sys.exit("results differ from those of this process")
    return expected


def kill_worker(sources: list[str], expected: list[Complexity], executor: Executor) -> None:
    """Kill a process at work, repeat the calls that fail, and compare the results."""
    worker = executor.submit(os.getpid).result()
    calls = [most_complex.submit(source) for source in sources]
    calls[0].result()
    os.kill(worker, getattr(signal, "SIGKILL", signal.SIGTERM))
    failed = [src for src, call in zip(sources, calls, strict=True) if isinstance(call.exception(), BrokenExecutor)]
    print(f"A process was killed during {len(calls)} calls; {len(failed)} of them failed and were repeated.")
    repeated = dict(zip(failed, repeat(failed), strict=True))
    if expected != [repeated.get(source) or call.result() for source, call in zip(sources, calls, strict=True)]:
        sys.exit("results differ after a process was killed")


def repeat(failed: list[str]) -> list[Complexity]:
    """Return the results of failed calls from a new pool of processes.

    A pool of processes fails as a whole when one of them dies. Dask runs the batch again, so no call fails.
    """
    if not failed:
        return []
    with processes() as (executor, _):
        most_complex.configure(executor=executor)
        return most_complex.map(failed)


def main(where: str | None = None) -> None:
    """Compare this process with the executor, and kill a worker unless the cluster is not ours."""
    sources_by_module = modules()
    sources = list(sources_by_module.values())
    with executor_for(where) as (executor, workers):
        expected = compare(sources, executor, workers)
        if where in {None, "processes"}:
            kill_worker(sources, expected, executor)
    print(f"All results are equal to those of this process ({len(sources)} of {len(sources)} modules).\n")
    for (branches, function), module in sorted(zip(expected, sources_by_module, strict=True), reverse=True)[:3]:
        print(f"{branches:>5} branches in {module}.{function}")


if __name__ == "__main__":
    # A worker has its own __main__, so it must find the function in an importable module.
    import cluster as importable

    importable.main(*sys.argv[1:2])

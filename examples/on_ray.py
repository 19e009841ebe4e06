"""Run batches as tasks of Ray.

This example shows how to run batches in a system that has no ``concurrent.futures.Executor``: with a class whose
``submit()`` passes each call to Ray and returns the future of its result.

It counts the words in the modules of the standard library in processes of Ray, two batches at once, and compares the
results with those of this process.

Run it with ``python examples/on_ray.py``; it needs the package ``ray``.
"""

from __future__ import annotations

import sys
import sysconfig
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import ray

from batchify import microbatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

T = TypeVar("T")


@microbatch(concurrency=2)
def words(texts: list[str]) -> list[int]:
    """Return the number of words in each text."""
    return [len(text.split()) for text in texts]


class RayExecutor(Executor):
    """Runs each call as a task of Ray, with the options of a task, such as ``num_cpus`` and ``max_retries``."""

    def __init__(self, **options: Any) -> None:
        self._task = ray.remote(lambda fn, args, kwargs: fn(*args, **kwargs)).options(**options)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call ``fn`` in a process of Ray."""
        future: Future[T] = self._task.remote(fn, args, kwargs).future()
        return future


def main() -> None:
    """Count the words on Ray and in this process, and compare."""
    folder = Path(sysconfig.get_path("stdlib"))
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    words.configure(executor=RayExecutor(num_cpus=1))
    found = words.map(texts)
    # Before Ray shuts down, because it does not answer any call after that.
    words.close()
    ray.shutdown()
    if found != words.__wrapped__(texts):
        sys.exit("answers differ from those of this process")
    print(f"{sum(found):,} words in {len(texts)} modules, in {words.batch_stats.total_batches} batches on Ray")


if __name__ == "__main__":
    # A worker has its own __main__, so it must find the function in an importable module.
    import on_ray as importable

    importable.main()

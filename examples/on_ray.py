"""Run batches as tasks of Ray, which has no executor of its own.

The question: what does it take to have something else run batches that is no ``concurrent.futures.Executor``?

Two methods: one class hands each call to Ray and returns the future that Ray makes of it. The sources of the standard
library's modules are counted then in processes of Ray, two batches at once, and the counts are those of this process.

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
    """Runs each call as a task of Ray, with the options of tasks, such as ``num_cpus`` and ``max_retries``."""

    def __init__(self, **options: Any) -> None:
        self._task = ray.remote(lambda fn, args, kwargs: fn(*args, **kwargs)).options(**options)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Let a process of Ray call ``fn``."""
        future: Future[T] = self._task.remote(fn, args, kwargs).future()
        return future


def main() -> None:
    """Count here and there, and compare."""
    folder = Path(sysconfig.get_path("stdlib"))
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    words.configure(executor=RayExecutor(num_cpus=1))
    found = words.map(texts)
    # Before Ray ends: after that it answers nobody.
    words.close()
    ray.shutdown()
    if found != words.__wrapped__(texts):
        sys.exit("answers differ from those of this process")
    print(f"{sum(found):,} words in {len(texts)} modules, in {words.batch_stats.total_batches} batches on Ray")


if __name__ == "__main__":
    # A worker has a __main__ of its own. What it is sent must go by the name that the module has there.
    import on_ray as importable

    importable.main()

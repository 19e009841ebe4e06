"""Count the instructions of a call: a figure that does not depend on the load of the machine.

    python -m tests.bench.instructions

Each hot path runs under Valgrind twice, with few calls and with many; the difference excludes the start-up. The limits
apply to the ratio to the floor for the same calls, so another Python or compiler changes little. The limits have a
margin: they detect unintended regressions.

The exit status is 1 if a ratio exceeds its limit.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product

from tests.bench import clock, subjects
from tests.bench.closed import ON_LOOP_SIZE, THREADS_SIZE
from tests.bench.figures import FLOOR, OURS
from tests.bench.subjects import FLOOR_WITH_POOL

VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
# Two batches on a loop.
CALLERS = 2 * ON_LOOP_SIZE
# The number of calls of each caller.
FEW, MANY = 10, 60
# The seconds of a window that does not end during a run, so that batches leave when they are full.
HOUR = 3600.0


def coroutines(name, calls):
    """Await an ``async def`` function in tasks."""
    _in_tasks(subjects.ON_LOOP[name], clock.echo, ON_LOOP_SIZE, calls)


def acall(name, calls):
    """Await a ``def`` function in tasks."""
    _in_tasks(subjects.THROUGH_ACALL[FLOOR_WITH_POOL if name == FLOOR else name], clock.echo_def, THREADS_SIZE, calls)


def _in_tasks(maker, fn, size, calls):
    async def main():
        subject = maker(fn, max_size=size, timeout=HOUR)
        await clock.tasks_rate(subject.call, CALLERS, calls)
        subject.close()

    clock.on_loop("asyncio", main)


def submit(name, calls):
    """Gather the futures of an ``async def`` function."""

    async def main():
        owner = subjects.ON_LOOP[name](clock.echo, max_size=ON_LOOP_SIZE, timeout=HOUR).owner
        items = list(range(CALLERS))
        for _ in range(calls):
            clock.check(await asyncio.gather(*[owner.submit(item) for item in items]), items)

    clock.on_loop("asyncio", main)


def threads(name, calls):
    """Block in threads, as many as a batch has places."""
    subject = subjects.AMONG_THREADS[name](clock.echo_def, max_size=THREADS_SIZE, timeout=HOUR)

    def caller(number):
        for item in range(number, number + calls):
            clock.check(subject.call(item), item)

    clock.among_threads(caller, THREADS_SIZE)
    subject.close()


# Hot path -> number of callers, and maximum ratio to the instructions of the floor.
PATHS = {coroutines: (CALLERS, 1.8), submit: (CALLERS, 2.4), acall: (CALLERS, 2.9), threads: (THREADS_SIZE, 3.7)}


def count(path, name, calls):
    """Return the number of instructions of a process with this number of calls of each caller."""
    command = [*VALGRIND, sys.executable, "-m", "tests.bench.instructions", path.__name__, name, str(calls)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if done.returncode or not found:
        sys.exit(done.stderr)
    return int(found[1].replace(",", ""))


def main():
    """Print the instructions of a call on each path; exit with status 1 if a ratio exceeds its limit."""
    if not shutil.which(VALGRIND[0]):
        sys.exit("valgrind is not installed")
    runs = list(product(PATHS, (FLOOR, OURS), (FEW, MANY)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = dict(zip(runs, pool.map(count, *zip(*runs, strict=True)), strict=True))
    print("instructions of a call      floor   batchify   ratio   limit")
    worse = False
    for path, (callers, limit) in PATHS.items():
        floor, ours = (
            (counts[path, name, MANY] - counts[path, name, FEW]) / callers / (MANY - FEW) for name in (FLOOR, OURS)
        )
        worse |= ours > limit * floor
        print(f"{path.__name__:22} {floor:10,.0f} {ours:10,.0f} {ours / floor:7.2f} {limit:7.2f}")
    if worse:
        sys.exit("a hot path takes more instructions than its limit allows")


if __name__ == "__main__":
    if sys.argv[1:]:
        _, path, name, calls = sys.argv
        # The times of collections depend on earlier allocations.
        gc.disable()
        globals()[path](name, int(calls))
    else:
        main()

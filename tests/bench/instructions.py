"""Compare the instructions and the CPU time of a call with those of the floor, as a check of every change.

    python -m tests.bench.instructions

Instructions: each hot path runs under Valgrind twice, with few calls and with many; the difference excludes the
start-up. The count does not depend on the load of the machine, but Valgrind sees neither system calls nor the
contention between threads.

CPU time: batchify and the floor run in turn, each in a process of its own, round after round. User and system time
count, so a system call for each call shows. The load of the machine spreads the ratios, so their lower quartile is
judged.

The exit status is 1 if a ratio exceeds its limit. The limits apply to the ratio to the floor for the same calls, so
another compiler changes little. They detect unintended regressions. When a path becomes faster, lower its limits: that
of the CPU time to a tenth above the largest ratio on the supported versions of Python.
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
from time import process_time
from typing import NamedTuple

from tests.bench import clock, subjects
from tests.bench.closed import ON_LOOP_SIZE, THREADS_SIZE
from tests.bench.figures import FLOOR, OURS, ratios, spread
from tests.bench.subjects import FLOOR_WITH_POOL

VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
# Two batches on a loop.
CALLERS = 2 * ON_LOOP_SIZE
# The number of calls of each caller, under Valgrind and when CPU time is measured.
FEW, MANY, TIMED = 10, 60, 400
ROUNDS = 9
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
        await clock.tasks_rates(subject.call, CALLERS, calls)
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


class Limits(NamedTuple):
    """The maximum ratios of a path to the floor."""

    instructions: float
    cpu_time: float


PATHS = {
    coroutines: Limits(1.2, 2.1),
    submit: Limits(1.5, 2.2),
    acall: Limits(1.1, 1.9),
    threads: Limits(3.2, 1.7),
}


def _run(path, name, calls, *prefix):
    """Run a path in a process of its own, and return what it prints."""
    command = [*prefix, sys.executable, "-m", "tests.bench.instructions", path.__name__, name, str(calls)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout, done.stderr


def count(path, name, calls):
    """Return the number of instructions of a process with this number of calls of each caller."""
    _, report = _run(path, name, calls, *VALGRIND)
    return int(re.search(r"I\s+refs:\s+([\d,]+)", report)[1].replace(",", ""))


def cpu_time(path, name):
    """Return the seconds of CPU time of a path."""
    printed, _ = _run(path, name, TIMED)
    return float(printed)


def main():
    """Print both ratios of each path; exit with status 1 if one exceeds its limit."""
    if not shutil.which(VALGRIND[0]):
        sys.exit("valgrind is not installed")
    runs = list(product(PATHS, (FLOOR, OURS), (FEW, MANY)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = dict(zip(runs, pool.map(count, *zip(*runs, strict=True)), strict=True))
    print("x floor       instructions   limit   CPU time              limit")
    exceeded = False
    for path, limits in PATHS.items():
        floor, ours = (counts[path, name, MANY] - counts[path, name, FEW] for name in (FLOOR, OURS))
        rounds = [(cpu_time(path, OURS), cpu_time(path, FLOOR)) for _ in range(ROUNDS)]
        timed = spread(ratios(*zip(*rounds, strict=True)))
        exceeded |= ours > limits.instructions * floor or timed.low > limits.cpu_time
        print(
            f"{path.__name__:12} {ours / floor:13.2f} {limits.instructions:7.2f}"
            f"   {timed.middle:.2f} ({timed.low:.2f}-{timed.high:.2f}) {limits.cpu_time:10.2f}"
        )
    if exceeded:
        sys.exit("a hot path costs more than its limit allows")


if __name__ == "__main__":
    if sys.argv[1:]:
        _, path, name, calls = sys.argv
        # The times of collections depend on earlier allocations.
        gc.disable()
        start = process_time()
        globals()[path](name, int(calls))
        print(process_time() - start)
    else:
        main()

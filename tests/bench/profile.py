"""Show the time of a call by part of the code, to explain a ratio.

    python -m tests.bench.profile

A sampling profiler reads each process from outside, a thousand times per second, and records the innermost line of the
thread that holds the interpreter. It does not stop the process, and does not slow it down as a tracing profiler does,
which would make small functions look expensive. Samples with errors are assumed to have the same distribution as the
others. While no thread holds the interpreter, the loop or the threads wait for the operating system.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import batchify
from tests.bench import clock, subjects
from tests.bench.closed import ON_LOOP_SIZE, THREADS_SIZE, WINDOW
from tests.bench.figures import FLOOR, OURS
from tests.bench.subjects import ADAPTIVE, AIODATALOADER

# Samples per second.
RATE = 1000
TASKS = 4 * ON_LOOP_SIZE
THREADS = 2 * THREADS_SIZE
IDLE = "no thread runs"
PACKAGE = Path(batchify.__file__).parent
TESTS = Path(__file__).parents[1]
# Path of the file -> part of the code; the first match counts.
PARTS = {
    str(PACKAGE / "_stats"): "statistics",
    str(PACKAGE / "_core"): "core",
    str(PACKAGE): "engine, decorator",
    str(TESTS / "bench/floors.py"): "the floor",
    str(TESTS): "caller, batch function",
    sysconfig.get_path("purelib"): "the peer",
    sysconfig.get_path("stdlib"): "standard library",
}


def lone(name, calls):
    """Make calls in one task."""
    return _tasks(name, None, 1, calls)


def tasks(name, calls):
    """Make calls in tasks that call again at once."""
    return _tasks(name, WINDOW, TASKS, calls // TASKS)


def _tasks(name, timeout, callers, calls):
    maker = subjects.ours_adaptive if name == ADAPTIVE else subjects.ON_LOOP[name]

    async def main():
        subject = maker(clock.echo, max_size=ON_LOOP_SIZE, timeout=timeout)
        await clock.tasks_rates(subject.call, callers, calls)

    clock.on_loop("asyncio", main)


def threads(name, calls):
    """Make calls in threads that call again at once."""
    subject = subjects.AMONG_THREADS[name](clock.echo_def, max_size=THREADS_SIZE, timeout=WINDOW)
    clock.threads_latencies(subject.call, THREADS, calls // THREADS, THREADS_SIZE)
    subject.close()


# Path -> number of calls, and the profiled entrants.
PATHS = {
    lone: (40_000, (AIODATALOADER, ADAPTIVE)),
    tasks: (800_000, (FLOOR, AIODATALOADER, OURS)),
    threads: (200_000, (FLOOR, OURS, ADAPTIVE)),
}


def profiled(path, name, calls):
    """Return the microseconds of a call in each part."""
    with TemporaryDirectory() as folder:
        stacks, timed = Path(folder, "stacks"), Path(folder, "timed")
        profiler = ("py-spy", "record", "--gil", "--nonblocking", "--full-filenames", "--format", "raw")
        command = [*profiler, "--rate", str(RATE), "--output", str(stacks), "--", sys.executable, "-m"]
        command += ["tests.bench.profile", path.__name__, name, str(calls), str(timed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not timed.exists():
            sys.exit(done.stderr)
        taken, failed = map(int, re.search(r"Samples: (\d+) Errors: (\d+)", done.stdout + done.stderr).groups())
        look = (taken + failed) / taken / RATE
        found = looks_by_part(stacks.read_text(encoding="utf-8"))
        found = Counter({part: looks * look * 1e6 / calls for part, looks in found.items()})
        found[IDLE] = max(0.0, float(timed.read_text(encoding="utf-8")) * 1e6 / calls - sum(found.values()))
    return found


def looks_by_part(stacks):
    """Return the samples of each part, from lines like ``frame (file:1);frame (file:2) samples``."""
    found = Counter()
    for line in stacks.splitlines():
        stack, _, looks = line.rpartition(" ")
        # Samples before the first call are not part of a path.
        if "importlib" not in stack:
            found[_part(stack.rpartition(";")[2])] += int(looks)
    return found


def _part(frame):
    file = frame.partition("(")[2]
    return next((part for where, part in PARTS.items() if file.startswith(where)), "standard library")


def main():
    """Print a table for each path: the microseconds per call of each entrant in each part."""
    if not shutil.which("py-spy"):
        sys.exit("py-spy is not installed")
    for path, (calls, names) in PATHS.items():
        found = {name: profiled(path, name, calls) for name in names}
        print(f"| {path.__name__}: us a call |" + "".join(f" {name} |" for name in names))
        print("|---" * (1 + len(names)) + "|")
        for part in (*dict.fromkeys(PARTS.values()), IDLE):
            if any(part in figures for figures in found.values()):
                print(f"| {part} |" + "".join(f" {found[name][part]:.1f} |" for name in names))
        print("| all |" + "".join(f" {sum(found[name].values()):.1f} |" for name in names) + "\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        _, path, name, calls, timed = sys.argv
        start = perf_counter()
        globals()[path](name, int(calls))
        Path(timed).write_text(f"{perf_counter() - start}", encoding="utf-8")
    else:
        main()

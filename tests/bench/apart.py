"""Measurements in separate processes: the cost of an import, and the activity without calls."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context

from tests.bench import clock, subjects
from tests.bench.contest import AbsentError, Contest, Together
from tests.bench.figures import OURS
from tests.bench.subjects import BATCHED

BARE = "nothing"
MODULES = ("asyncio", "batchify", "batched", "async_batcher.batcher", "aiodataloader", "ray.serve")
TIMED_IMPORT = "from time import process_time as now; start = now(); import {}; print(now() - start)"
THREADS = ", threads"


def import_contests(plan):
    """Import in a new interpreter, without the start of the interpreter."""
    runs = {name: partial(_import_time, name) for name in MODULES}
    yield Contest("import", "ms of CPU", runs, "asyncio", note="Less is better.")


def _import_time(name):
    package = name.partition(".")[0]
    if not find_spec(package):
        msg = f"not installed: {package}"
        raise AbsentError(msg)
    # Python keeps compiled modules, so only the first import compiles them.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", TIMED_IMPORT.format(name)]
    return 1000 * float(subprocess.run(command, env=kept, check=True, capture_output=True).stdout.split()[-1])


def idle_contests(plan):
    """Do nothing for a second after a call."""
    names = [BARE, OURS, *subjects.PEERS, OURS + THREADS, BATCHED + THREADS]
    together = Together(partial(_in_processes, names))
    yield Contest(
        "a second without calls",
        "wake-ups",
        {name: partial(together.outcome, name) for name in names},
        BARE,
        note="Less is better. A wake-up is a voluntary context switch of the process.",
    )


def _in_processes(names, number):
    """Measure each entrant in a process of its own, all at the same time."""
    with get_context("spawn").Pool(len(names), maxtasksperchild=1) as pool:
        return dict(zip(names, pool.map(_idle, names, chunksize=1), strict=True))


def _idle(name):
    """Return the number of wake-ups of this process in a second, or an ``AbsentError``."""
    try:
        if name == BARE:
            return _sleep()
        if name.endswith(THREADS):
            maker = subjects.AMONG_THREADS[name.removesuffix(THREADS)]
            clock.check(maker(clock.echo_def, max_size=32, timeout=0.002).call(1), 1)
            return _sleep()
        return clock.on_loop("asyncio", partial(_idle_on_loop, subjects.ON_LOOP[name]))
    except AbsentError as error:
        return error


async def _idle_on_loop(maker):
    call = maker(clock.echo, max_size=32, timeout=0.002).call
    clock.check(await call(1), 1)
    await asyncio.sleep(0.1)
    before = _wake_ups()
    await asyncio.sleep(1)
    return _wake_ups() - before


def _sleep():
    time.sleep(0.1)
    before = _wake_ups()
    time.sleep(1)
    return _wake_ups() - before


def _wake_ups():
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw

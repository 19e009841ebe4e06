"""Measurements in separate processes: the cost of an import, and the activity without calls."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from operator import itemgetter

from tests.bench import clock, subjects
from tests.bench.contest import AbsentError, Contest, Entrant
from tests.bench.figures import OURS, Bar
from tests.bench.subjects import BATCHED

BARE = "nothing"
MODULES = ("asyncio", "batchify", "batched", "async_batcher", "aiodataloader", "ray.serve")


def import_contests(plan):
    """Import in a new interpreter."""
    yield Contest(
        "import",
        "ms of CPU",
        {BARE: Entrant(partial(_imports, "sys"))} | {name: Entrant(partial(_imports, name)) for name in MODULES},
        BARE,
        bars=(Bar(40, (BARE,), most=True, subject="batchify", apart=True),),
        note=f"Less is better. The slowest imports of batchify, in us: {_import_time()}.",
    )


def _imports(name):
    package = name.partition(".")[0]
    if not find_spec(package):
        msg = f"not installed: {package}"
        raise AbsentError(msg)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {name}"], env=_compiled(), check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _compiled():
    """Return an environment in which Python keeps compiled modules."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _import_time():
    """Return the slowest modules by their own import time, from ``-X importtime``."""
    command = [sys.executable, "-X", "importtime", "-c", "import site, sys; sys.stderr.write('--\\n'); import batchify"]
    # The first run compiles the modules.
    for _ in range(2):
        done = subprocess.run(command, env=_compiled(), capture_output=True, text=True, check=True)
    output = done.stderr.partition("--\n")[2]
    own = {name: int(us) for us, name in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", output)}
    most = sorted(own.items(), key=itemgetter(1), reverse=True)[:6]
    return ", ".join([f"{len(own)} modules {sum(own.values())}", *(f"{name} {us}" for name, us in most)])


def idle_contests(plan):
    """Do nothing for a second after a call."""
    names = (BARE, *subjects.ON_LOOP, "batchify, threads", "batched, threads")
    yield Contest(
        "a second without calls",
        "wake-ups",
        {name: Entrant(partial(_in_a_process, name)) for name in names if name != subjects.FLOOR},
        BARE,
        tail="ms of CPU",
        bars=(
            Bar(1, (BARE,), most=True, apart=True),
            Bar(1, (BARE,), most=True, apart=True, subject="batchify, threads"),
        ),
        note="Less is better. A wake-up is a voluntary context switch of the process.",
    )


def _in_a_process(name):
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_idle, (name,))


def _idle(name):
    """Return the number of wake-ups of this process in a second, and its CPU time in milliseconds."""
    if name == BARE:
        return _sleep()
    library = name.removesuffix(", threads")
    if name != library:
        subject = {OURS: subjects.ours, BATCHED: subjects.batched_in_thread}[library](
            clock.echo_def, max_size=32, timeout=0.002
        )
        clock.check(subject.call(1), 1)
        return _sleep()

    async def main():
        call = subjects.ON_LOOP[library](clock.echo, max_size=32, timeout=0.002).call
        clock.check(await call(1), 1)
        await asyncio.sleep(0.1)
        before = _used()
        await asyncio.sleep(1)
        return _difference(before)

    return clock.on_loop("asyncio", main)


def _sleep():
    time.sleep(0.1)
    before = _used()
    time.sleep(1)
    return _difference(before)


def _used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nvcsw, 1000 * time.process_time()


def _difference(before):
    return tuple(now - then for now, then in zip(_used(), before, strict=True))

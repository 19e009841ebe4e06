"""Forks of the process, and blocks of frozen clocks, during calls."""

from __future__ import annotations

import asyncio
import os
import signal
import traceback

import freezegun
import time_machine
from ledger import ANSWER, Ledger
from subjects import ON_LOOPS

from batchify import BatcherClosedError

# The number of seconds after which a child that still runs is killed.
HANG = 30
# How many of the faults are frozen clocks.
FREEZES = 0.8
# The Unix epoch: before the machine was started.
EPOCH = 0
# freezegun replaces attributes of all loaded modules, which takes a hundred times as long.
CLOCKS = [lambda: time_machine.travel(EPOCH, tick=False)] * 30
# The callers' own timers run on real time.
CLOCKS += [lambda: freezegun.freeze_time("1970-01-01", real_asyncio=True)]


def disturb(trial, ended):
    """Freeze clocks and fork until all calls have ended."""
    random = trial.random("faults")
    while not ended.wait(random.uniform(0, 0.25)):
        if random.random() < FREEZES:
            freeze(trial, random, ended)
        else:
            fork(trial, random)


def freeze(trial, random, ended):
    """Stop the clock of the application for some calls."""
    with random.choice(CLOCKS)():
        trial.faked["frozen clocks"] += 1
        ended.wait(random.uniform(0, 0.01))


def fork(trial, random):
    """Let a child call all functions, and check that it ends without a fault."""
    if not hasattr(os, "fork"):
        return
    ledger = trial.ledger()
    calls = []
    for subject in list(trial.subjects):
        # The threads of an executor are not in the child, and nothing flushes there.
        if subject.executor is None and subject.window != 3600:
            item = trial.item(random)
            item.action, item.call_options, item.reading_limit = ANSWER, None, None
            calls.append((subject, item))
            ledger.note(subject, "not started")
    child = os.fork()
    if not child:
        _end_child(calls)
    trial.faked["forks"] += 1
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        trial.report_fault("dead", f"a child of a fork ended with {status}")


def _end_child(calls):
    """Call once in each way, and end with the number of faults."""
    faults = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(HANG)
        found = []
        ledger = Ledger(lambda *fault: found.append(fault))
        for subject, item in calls:
            # The batches of the parent do not run here.
            subject._running.clear()
            subject._report_fault = ledger.report_fault
            try:
                answer = asyncio.run(_await(subject.acall, item)) if subject.kind in ON_LOOPS else subject.call(item)
            except BatcherClosedError as error:
                ledger.failed(subject, item, error)
            else:
                ledger.answered(subject, item, answer)
        for fault in found:
            print(*fault, flush=True)
        faults = len(found)
    except BaseException:
        traceback.print_exc()
    finally:
        # Without the exit hooks and the buffers of the parent.
        os._exit(min(faults, 100))


async def _await(acall, item):
    return await acall(item)

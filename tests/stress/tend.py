"""Operations on batchers during calls.

Batchers are flushed, inspected, reconfigured, closed, opened again, and replaced.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback

from ledger import accounted
from subjects import ON_LOOPS, Subject

from batchify._clock import monotonic

PATIENCE = 10.0


def maintain(trial, ended):
    """Operate on random subjects until all calls have ended."""
    random = trial.random("tend")
    while not ended.wait(random.uniform(0, 0.004)):
        try:
            for subject in trial.subjects:
                # Otherwise, queued items might never leave.
                if subject.lasts and subject.window == 3600:
                    subject.flush()
            _maintain_one(trial, random, random.randrange(len(trial.subjects)))
        except BaseException:
            trial.report_fault("broken", traceback.format_exc())


def _maintain_one(trial, random, place):
    subject = trial.subjects[place]
    _check_stats(trial, subject)
    if not subject.lasts:
        return
    if random.random() < 0.3:
        subject.flush()
    if random.random() < 0.2:
        subject.reconfigure(random)
    if random.random() < 0.15 and not _close(trial, subject, random):
        trial.retired.append(subject)
        trial.subjects[place] = Subject(subject.kind, random, trial.report_fault, trial.executor)


def _check_stats(trial, subject):
    """Check that the statistics include every call at any time."""
    if subject.stats is None:
        return
    made = trial.made
    calls = accounted(subject.stats())
    if not subject.seen <= calls <= trial.made:
        trial.report_fault("broken", f"{subject} counts {calls} calls, after {subject.seen}, with {made} made")
    subject.seen = calls


def _close(trial, subject, random):
    """Close a subject, and perhaps open it again; return whether it is open."""
    subject.closings += 1
    if random.random() < 0.5:
        subject.close()
    else:
        asyncio.run(subject.aclose())
    if not _is_drained(subject):
        trial.report_fault("broken", f"{subject} is closed but not drained: {subject.stats()!r}")
    if subject.start is None or random.random() < 0.5:
        return False
    if inspect.isawaitable(started := subject.start()):
        asyncio.run(_await(started))
    return True


def _is_drained(subject):
    deadline = monotonic() + PATIENCE
    while True:
        stats = subject.stats()
        if not stats.pending and not stats.running:
            return True
        # Closing does not wait for a loop that is about to end.
        if subject.kind not in ON_LOOPS or monotonic() > deadline:
            return False
        time.sleep(0.001)


async def _await(awaitable):
    await awaitable

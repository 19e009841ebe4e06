"""What happens to batchers while they are called.

They are flushed, looked at, configured anew, closed, opened again, and replaced.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback

from ledger import accounted
from subjects import ON_LOOPS, Subject

PATIENCE = 10.0


def tend(game, ended):
    """Look after the subjects until all calls have ended."""
    random = game.random("tend")
    while not ended.wait(random.uniform(0, 0.004)):
        try:
            for subject in game.subjects:
                # Otherwise what waits there might never leave.
                if subject.lasts and subject.window == 3600:
                    subject.flush()
            _tend_to(game, random, random.randrange(len(game.subjects)))
        except BaseException:
            game.complain("broken", traceback.format_exc())


def _tend_to(game, random, place):
    subject = game.subjects[place]
    _look(game, subject)
    if not subject.lasts:
        return
    if random.random() < 0.3:
        subject.flush()
    if random.random() < 0.2:
        subject.reconfigure(random)
    if random.random() < 0.15 and not _close(game, subject, random):
        game.retired.append(subject)
        game.subjects[place] = Subject(subject.kind, random, game.complain, game.executor)


def _look(game, subject):
    """Check that statistics never lose a call, at whichever moment they are read."""
    if subject.stats is None:
        return
    made = game.made
    calls = accounted(subject.stats())
    if not subject.seen <= calls <= game.made:
        game.complain("broken", f"{subject} accounts for {calls} calls, after {subject.seen}, with {made} made")
    subject.seen = calls


def _close(game, subject, random):
    """Close a subject; return whether it is open again."""
    subject.closings += 1
    if random.random() < 0.5:
        subject.close()
    else:
        asyncio.run(subject.aclose())
    if not _is_drained(subject):
        game.complain("broken", f"{subject} is closed, and not drained: {subject.stats()!r}")
    if subject.start is None or random.random() < 0.5:
        return False
    if inspect.isawaitable(started := subject.start()):
        asyncio.run(_await(started))
    return True


def _is_drained(subject):
    deadline = time.monotonic() + PATIENCE
    while True:
        stats = subject.stats()
        if not stats.pending and not stats.running:
            return True
        # A loop that is about to end is not waited for.
        if subject.kind not in ON_LOOPS or time.monotonic() > deadline:
            return False
        time.sleep(0.001)


async def _await(awaitable):
    await awaitable

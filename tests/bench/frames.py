"""The Python frames of one call: how much code a reader passes through, and in how many files."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import batchify
from tests.bench import clock, floors, subjects
from tests.bench.contest import Contest
from tests.bench.figures import FLOOR, OURS

CODE = {FLOOR: floors.__file__, OURS: str(Path(batchify.__file__).parent)}
TITLE = "frames of a call on an idle batcher"


def frame_contests(plan):
    """Count the frames of the second call of a ``def`` function, in the caller's thread and in the worker."""
    runs = {name: partial(_second_call, name) for name in CODE}
    yield Contest(
        TITLE, "frames", runs, tail="files", note="Less is better. Only frames of the entrant's own code count."
    )


def _second_call(name):
    """Return the number of frames, and that of their files."""
    subject = subjects.AMONG_THREADS[name](_characters, max_size=64, timeout=0 if name == FLOOR else None)
    entered = Counter()

    def count(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(CODE[name]):
            entered[frame.f_code.co_filename] += 1

    # A thread that starts now is counted, too.
    before = sys.getprofile()
    threading.setprofile(count)
    sys.setprofile(count)
    try:
        clock.check(subject.call("x"), ["x"])
        _settle(entered)
        entered.clear()
        clock.check(subject.call("x"), ["x"])
        _settle(entered)
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    found = entered.total(), len(entered)
    subject.close()
    return found


def _characters(texts):
    return [list(text) for text in texts]


def _settle(entered):
    """Wait until the worker, which works on after it has answered, has come to rest."""
    before = None
    while before != (before := entered.total()):
        time.sleep(0.02)

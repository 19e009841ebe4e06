"""What has to be the same after a game as before it, and what nobody may hear."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from asyncio import CancelledError
from collections import Counter
from pathlib import Path

from batchify._threads.waiters import kept

# How many seconds threads get to end after the last reference to what they work for is gone.
PATIENCE = 5.0
STATM = Path("/proc/self/statm")


def objects():
    """Count the library's objects by type."""
    # This thread keeps one for its next call, if its last one was not interrupted.
    kept.blocked = None
    for _ in range(3):
        gc.collect()
    kinds = [type(each) for each in gc.get_objects()]
    return Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).partition(".")[0] == "batchify")


def threads(known):
    """Return the threads that are not in ``known``, when they have had time to end."""
    deadline = time.monotonic() + PATIENCE
    while (rest := [each for each in threading.enumerate() if each not in known]) and time.monotonic() < deadline:
        time.sleep(0.001)
    return rest


def memory():
    """Return the number of memory blocks that Python has, and the resident KiB of the process, 0 if unknown."""
    resident = int(STATM.read_text().split()[1]) * 4 if STATM.exists() else 0
    return min(_blocks() for _ in range(5)), resident


def _blocks():
    # Threads that are no longer listed may still be letting go of what they held.
    time.sleep(0.002)
    gc.collect()
    return sys.getallocatedblocks()


class Noise(logging.Handler):
    """Takes down what is logged, warned of, or raised where nobody can catch it."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.heard = []
        logging.getLogger().addHandler(self)
        logging.captureWarnings(capture=True)
        threading.excepthook = sys.unraisablehook = self.hook

    def emit(self, record):
        if not _is_unread(record) and not _is_for_nobody(record):
            self.heard.append(self.format(record))

    def hook(self, args):
        where = getattr(args, "thread", None) or getattr(args, "object", None)
        text = f"{args.exc_type.__name__}: {args.exc_value} in {where!r}"
        self.heard.append(text + _frames(args.exc_traceback))


def _is_unread(record):
    """Say whether asyncio tells of an error that a batch function raised and nobody read, as it should."""
    if not record.getMessage().startswith("Future exception was never retrieved"):
        return False
    error = record.exc_info[1]
    while error.__cause__ is not None:
        error = error.__cause__
    # That a loop ended is nobody's error.
    return not isinstance(error, CancelledError)


def _is_for_nobody(record):
    """Say whether a generator function raised when all its streams were over, which nobody else is told."""
    return record.getMessage().endswith("raised after all streams of its batch had ended")


def _frames(traceback):
    lines = ""
    while traceback is not None:
        lines += f"\n  {traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return lines

"""Resources that must be the same after a trial as before it, and errors that must not be logged."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from asyncio import CancelledError
from collections import Counter
from pathlib import Path

from ledger import Interrupted

from batchify._threads.waiters import kept

# The number of seconds within which threads must end after the last reference to their batcher is gone.
PATIENCE = 5.0
STATM = Path("/proc/self/statm")


def objects():
    """Count the library's objects by type."""
    # This thread keeps a waiter for its next call, unless its last call was interrupted.
    kept.waiter = None
    for _ in range(3):
        gc.collect()
    kinds = [type(each) for each in gc.get_objects()]
    return Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).partition(".")[0] == "batchify")


def threads(known):
    """Return the threads that are not in ``known`` and do not end in time."""
    deadline = time.monotonic() + PATIENCE
    while (rest := [each for each in _started() if each not in known]) and time.monotonic() < deadline:
        time.sleep(0.001)
    return rest


def _started():
    # CPython also lists a thread for ever whose start a signal handler has interrupted. It is not alive.
    return [each for each in threading.enumerate() if each.is_alive()]


def memory():
    """Return the number of allocated memory blocks, and the resident KiB of the process, or 0 if unknown."""
    resident = int(STATM.read_text().split()[1]) * 4 if STATM.exists() else 0
    return min(_blocks() for _ in range(5)), resident


def _blocks():
    # Threads that are no longer listed may still release their objects.
    time.sleep(0.002)
    gc.collect()
    return sys.getallocatedblocks()


class LogRecorder(logging.Handler):
    """Records log messages, warnings, and exceptions that no code can catch."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.records = []
        logging.getLogger().addHandler(self)
        logging.captureWarnings(capture=True)
        threading.excepthook = sys.unraisablehook = self.hook

    def emit(self, record):
        if not _is_unread(record) and not _is_after_last_stream(record):
            self.records.append(self.format(record))

    def hook(self, args):
        if args.exc_type is Interrupted:
            # An alarm during a finalizer, where the interpreter drops all exceptions.
            return
        where = getattr(args, "thread", None) or getattr(args, "object", None)
        text = f"{args.exc_type.__name__}: {args.exc_value} in {where!r}"
        self.records.append(text + _frames(args.exc_traceback))


def _is_unread(record):
    """Return whether asyncio reports, as it must, that an error of a batch function was never retrieved."""
    # The futures of submit() have a class of their own.
    if not record.getMessage().partition("\n")[0].endswith("Future exception was never retrieved"):
        return False
    error = record.exc_info[1]
    while error.__cause__ is not None:
        error = error.__cause__
    # The cancellation by an ending loop is not such an error.
    return not isinstance(error, CancelledError)


def _is_after_last_stream(record):
    """Return whether a generator function raised after all its streams had ended, so that no caller got the error."""
    return record.getMessage().endswith("raised after all streams of its batch had ended")


def _frames(traceback):
    lines = ""
    while traceback is not None:
        lines += f"\n  {traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return lines

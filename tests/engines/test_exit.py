"""Submitted items are answered before a process ends. Nothing hangs, and the exit code is unaffected."""

from __future__ import annotations

import signal
import sys
from textwrap import dedent

import pytest

from tests.kit import processes

THREADS = """
    import os, signal, sys, threading
    from batchify import microbatch

    @microbatch(timeout=3600)
    def double(items):
        return [2 * item for item in items]

    def wait():
        double.submit(1).add_done_callback(lambda future: print("answered", future.result(), flush=True))
"""
ASYNCIO = """
    import asyncio, os, signal, sys, threading
    from batchify import microbatch

    @microbatch(timeout=3600)
    async def double(items):
        return [2 * item for item in items]

    def wait():
        pass

    async def main():
        callers = [asyncio.ensure_future(double(1)), double.submit(2)]
        # The task queues its item.
        await asyncio.sleep(0)
        await end()
"""
BLOCKED = """
    def call():
        print("answered", double(1), flush=True)

    threading.Thread(target=call, daemon={daemon}).start()
    while not double.batch_stats.pending:
        pass
"""
# How the main thread ends, the exit code, and the last line on the error stream.
ENDS = {
    "at its last line": ("pass", 0, ""),
    "with sys.exit": ("sys.exit(3)", 3, ""),
    "with an unhandled exception": ("raise KeyError('mine')", 1, "KeyError: 'mine'"),
    "with KeyboardInterrupt": ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt"),
}
# How an item is queued, by the thread that submits it.
WAITING = {
    "the main thread": "wait()",
    "another thread": "thread = threading.Thread(target=wait); thread.start(); thread.join()",
    "a thread that is blocked": BLOCKED.format(daemon=False),
    "a daemon that is blocked": BLOCKED.format(daemon=True),
}
# Flags of the interpreter: without asserts, with warnings as errors, in development mode.
FLAGS = {"": [], "-O": ["-O"], "-W error": ["-W", "error"], "-X dev": ["-X", "dev"]}


def run(*parts, flags=()):
    """Run a script that is made of these parts; return the completed process."""
    return processes.run(*flags, "-c", "\n".join(dedent(part).strip("\n") for part in parts))


def last_line(text):
    return text.strip().rpartition("\n")[2]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("waiting", WAITING)
def test_items_submitted_to_threads_are_answered(waiting, end):
    """Whichever thread submits and however the main thread ends, the items run first."""
    how, code, message = ENDS[end]
    done = run(THREADS, WAITING[waiting], how)
    # A daemon may end before it has read its answer.
    assert "answered 2\n" == done.stdout or "daemon" in waiting
    assert (code, message) == (done.returncode, last_line(done.stderr))


@pytest.mark.parametrize("end", ENDS)
def test_a_loop_ends_with_queued_items(end):
    """However a loop with queued items ends, the process ends too, and batchify writes nothing to its error stream."""
    how, code, message = ENDS[end]
    done = run(ASYNCIO, f"async def end(): {how}", "asyncio.run(main())")
    assert (code, message, "") == (done.returncode, last_line(done.stderr), done.stdout)


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_every_mode_of_the_interpreter(flags):
    """Optimised, in development mode, and with warnings as errors, both engines answer and write no warning."""
    calls = "double.flush(); print(double.map([3, 4]))"
    done = run(THREADS.replace("3600", "0"), WAITING["another thread"], calls, flags=flags)
    assert (0, "answered 2\n[6, 8]\n", "") == (done.returncode, done.stdout, done.stderr)
    end = "async def end(): double.flush(); print(await double.map([3, 4]))"
    done = run(ASYNCIO.replace("3600", "0.001"), end, "asyncio.run(main())", flags=flags)
    assert (0, "[6, 8]\n", "") == (done.returncode, done.stdout, done.stderr)


INTERRUPTING = """
    def interrupt():
        while not double.batch_stats.pending:
            pass
        # CPython notices a signal that arrives just before a lock waits only after the wait.
        while threading.main_thread().is_alive():
            os.kill(os.getpid(), signal.SIGINT)
            threading.main_thread().join(1)

    threading.Thread(target=interrupt).start()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_ctrl_c_in_a_blocked_call():
    """Ctrl-C ends a call that is blocked for the length of a window, and the process. The item is not run."""
    done = run(
        THREADS, "double.__wrapped__.__code__ = (lambda items: print('ran')).__code__", INTERRUPTING, "double(1)"
    )
    assert (-signal.SIGINT, "KeyboardInterrupt", "") == (done.returncode, last_line(done.stderr), done.stdout)

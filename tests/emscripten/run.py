"""Run the tests on Pyodide, CPython for WebAssembly, which has no threads, processes and sockets.

Two rules decide which tests run:

1. Only the tests in ``PATHS``. Nearly all tests in other files start threads.
2. A test that needs a thread, a process or a socket is skipped when it asks for one. All others must pass.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import threading
import warnings

import pytest

PATHS = [
    "tests/core",
    "tests/batcher",
    "tests/stats/test_counters.py",
    "tests/stats/test_drawing.py",
    "tests/stats/test_totals.py",
    "tests/decorator/test_decorator.py",
    "tests/decorator/test_signature.py",
    "tests/engines/test_asyncio.py",
    "tests/engines/test_asyncio_streams.py",
    "tests/engines/test_machine.py",
    "tests/contract/test_misuse.py",
    "tests/contract/test_spec.py",
    "tests/project/test_testing.py",
]
REASON = "needs threads, processes or sockets"


class Skipping:
    """A plugin of pytest that applies the second rule."""

    def __init__(self):
        self._is_skipped = False
        threading.Thread.start = subprocess.Popen.__init__ = self._skip
        # Loops wake through sockets. Without them, even the finalizer of a loop would fail.
        loop = asyncio.SelectorEventLoop
        loop._make_self_pipe, loop._close_self_pipe = self._skip, lambda _: None

    def pytest_configure(self):
        from hypothesis import settings

        # Other Pythons, which are ten times as fast, try more examples.
        settings.register_profile("few", max_examples=10, deadline=None)
        settings.load_profile("few")

    def _skip(self, *_, **__):
        self._is_skipped = True
        pytest.skip(REASON)

    def pytest_collection_finish(self):
        # The collections below then skip the objects of all modules, which takes a tenth of the time.
        gc.freeze()

    def pytest_runtest_setup(self, item):
        # The kits start their threads late, with a loop that no test would close.
        if {"kit", "threads"}.intersection(item.fixturenames):
            pytest.skip(REASON)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item):
        report = yield
        if self._is_skipped and report.failed:
            # The library has caught the exception of the skip.
            report.outcome, report.longrepr = "skipped", (str(item.path), 0, REASON)
        return report

    def pytest_runtest_logfinish(self):
        if self._is_skipped:
            # A skip may leave loops and coroutines behind, of which Python would warn in a later test.
            with warnings.catch_warnings(action="ignore"):
                gc.collect()
        self._is_skipped = False


class Policy(asyncio.events._BaseDefaultEventLoopPolicy):
    """Creates the only event loop of Python that needs no socket."""

    def new_event_loop(self):
        # Not before pytest has loaded its plugins, as it rewrites the asserts of the package.
        from batchify.testing import VirtualLoop

        return VirtualLoop()


def main():
    """Run pytest, and return its exit code."""
    # The loop of the browser runs around this call.
    asyncio._set_running_loop(None)
    with warnings.catch_warnings(action="ignore"):
        asyncio.set_event_loop_policy(Policy())
    # Both features of pytest start a thread or a process.
    options = ["-q", "-n", "0", "-o", "faulthandler_timeout=0"]
    return int(pytest.main([*options, *PATHS], plugins=[Skipping()]))

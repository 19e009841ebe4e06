"""For every test: an event loop in virtual time, kits that drive the engines, and no batcher of another test."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading

import pytest
from hypothesis import settings

import batchify
from batchify.testing import VirtualLoop
from tests.kit.engines import Bridged, Tasks, Threads, wait_until

# The duration of an example depends on the machine.
settings.register_profile("untimed", settings(deadline=None))
settings.load_profile("untimed")


def pytest_asyncio_loop_factories(config, item):
    return {"virtual": VirtualLoop}


def pytest_xdist_auto_num_workers(config):
    """Run a single file in this process, where it starts at once and a debugger works."""
    return 0 if len(config.args) == 1 and ".py" in config.args[0] else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Take the trace function of coverage from a test that is marked ``untraced``, and from the threads it starts."""
    if item.get_closest_marker("untraced") is None:
        return (yield)
    here, in_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        threading.settrace(in_threads)
        sys.settrace(here)


@pytest.fixture(autouse=True)
def _nothing_left():
    """Close all batchers after each test, and wait for the end of their threads."""
    yield
    batchify.close_all()
    closed = [
        batcher._ensure_engine() for batcher in batchify.batchers() if isinstance(batcher, batchify.SyncMicrobatcher)
    ]
    wait_until(lambda: not any(engine.workers.all or engine._deadline_workers.all for engine in closed))


@pytest.fixture(params=[Threads, Tasks, Bridged], ids=lambda kind: kind.name)
def kit(request):
    """Call from blocked threads, from tasks, or from tasks that call into the thread engine."""
    kit = request.param()
    yield kit
    kit.close()


@pytest.fixture
def threads():
    """Call from blocked threads."""
    kit = Threads()
    yield kit
    kit.close()


@pytest.fixture
def no_others(monkeypatch):
    """Begin with no batcher, whatever batchers other tests have left."""
    monkeypatch.setattr("batchify._batcher.live._live", {})


@pytest.fixture
def moment():
    """Return the time of the running loop."""

    @functools.wraps(asyncio.get_running_loop)
    def moment():
        return asyncio.get_running_loop().time()

    return moment

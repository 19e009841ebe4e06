"""What every test has: an event loop in virtual time, both engines to drive, and nothing left of other tests."""

from __future__ import annotations

import asyncio
import functools

import pytest

import batchify
from batchify.testing import VirtualLoop
from tests.kit.engines import Bridged, Tasks, Threads, wait_until


def pytest_asyncio_loop_factories(config, item):
    return {"virtual": VirtualLoop}


@pytest.fixture(autouse=True)
def _nothing_left():
    """End every test with closed batchers and without a thread of theirs."""
    yield
    batchify.close_all()
    closed = [
        batcher._ensure_engine() for batcher in batchify.batchers() if isinstance(batcher, batchify.SyncMicrobatcher)
    ]
    wait_until(lambda: not any(engine.workers.count for engine in closed))


@pytest.fixture(params=[Threads, Tasks, Bridged], ids=lambda kind: kind.name)
def kit(request):
    """Whichever way to call: blocked threads, tasks, or tasks that call into the thread engine."""
    kit = request.param()
    yield kit
    kit.close()


@pytest.fixture
def moment():
    """Return the time of the running loop."""

    @functools.wraps(asyncio.get_running_loop)
    def moment():
        return asyncio.get_running_loop().time()

    return moment

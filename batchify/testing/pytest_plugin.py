"""The pytest plugin: ``batchify.testing`` as fixtures.

It decides which tests run in virtual time. It must not know how virtual time works.

pytest loads the plugin in every run where batchify is installed, so only a fixture may load the names of ``testing``.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from batchify import testing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

VIRTUAL = "batchify_virtual_time"


@pytest.fixture
def batchify_inline() -> Iterator[None]:
    """Run each call as a batch of one, with ``batchify.testing.inline()``."""
    with testing.inline():
        yield


@pytest.fixture
def batchify_recorder() -> Iterator[testing.Recorder]:
    """Record the batches that run, with their items and reasons, with ``batchify.testing.record()``."""
    with testing.record() as recorder:
        yield recorder


@pytest.fixture
def batchify_virtual_time() -> Callable[..., Any]:
    """Run an ``async def`` test on a ``batchify.testing.VirtualLoop``, with pytest-asyncio (1.4 or later) or without.

    In a ``def`` test, the value of the fixture is ``batchify.testing.run``, which does the same for a coroutine.
    """
    return testing.run


class _LoopFactories:
    # Registered only while pytest collects a test in virtual time, because it would apply to every other test too.

    @pytest.hookimpl(optionalhook=True)
    def pytest_asyncio_loop_factories(self) -> dict[str, Callable[[], Any]]:
        return {"virtual": testing.VirtualLoop}


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, None, None]:
    """Give pytest-asyncio a virtual loop while it collects a test that requests one."""
    if VIRTUAL not in metafunc.fixturenames:
        return (yield)
    factories = _LoopFactories()
    metafunc.config.pluginmanager.register(factories)
    try:
        return (yield)
    finally:
        metafunc.config.pluginmanager.unregister(factories)


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test in virtual time, unless another plugin runs it."""
    if VIRTUAL not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    # Not the whole signature: ``mock.patch`` passes some parameters, and others have defaults.
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    testing.run(pyfuncitem.obj(**arguments))
    return True

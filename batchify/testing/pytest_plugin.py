"""The pytest plugin: what ``batchify.testing`` offers, as fixtures.

Decides: which tests run in virtual time.
Must not know: how that is done.

pytest loads it in every run where batchify is installed. So it loads nothing more until a test asks for it, and leaves
all other tests alone.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from batchify.testing import Recorder

VIRTUAL = "batchify_virtual_time"


@pytest.fixture
def batchify_inline() -> Iterator[None]:
    """Run each call as a batch of one, as ``batchify.testing.inline()`` does."""
    from batchify.testing import inline  # noqa: PLC0415  # as the module says

    with inline():
        yield


@pytest.fixture
def batchify_recorder() -> Iterator[Recorder]:
    """Record which batches leave, with which items, and why, as ``batchify.testing.record()`` says."""
    from batchify.testing import record  # noqa: PLC0415  # as above

    with record() as recorder:
        yield recorder


@pytest.fixture
def batchify_virtual_time() -> Callable[..., Any]:
    """Run an ``async def`` test on a ``batchify.testing.VirtualLoop``, with pytest-asyncio (1.4 or later) or without.

    In a ``def`` test its value, ``batchify.testing.run``, does the same for a coroutine.
    """
    from batchify.testing import run  # noqa: PLC0415  # as above

    return run


class _Factories:
    """Tells pytest-asyncio which loops to make. It is registered only while it asks for a test in virtual time.

    If it were there at other times, pytest-asyncio would want an answer for every test.
    """

    @pytest.hookimpl(optionalhook=True)
    def pytest_asyncio_loop_factories(self) -> dict[str, Callable[[], Any]]:
        from batchify.testing import VirtualLoop  # noqa: PLC0415  # as above

        return {"virtual": VirtualLoop}


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, None, None]:
    """Offer pytest-asyncio a virtual loop while it collects tests that ask for one."""
    if VIRTUAL not in metafunc.fixturenames:
        return (yield)
    factories = _Factories()
    metafunc.config.pluginmanager.register(factories)
    try:
        return (yield)
    finally:
        metafunc.config.pluginmanager.unregister(factories)


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine that no other plugin has taken on."""
    if VIRTUAL not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    from batchify.testing import run  # noqa: PLC0415  # as above

    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    run(pyfuncitem.obj(**arguments))
    return True

"""Test code that uses batchify: its results, its batches, and its timing.

This example shows how to test a function that waits for other calls.

``shown`` is code of an application. It asks for the price of one article at a time. The batch function asks a warehouse
for several prices; here, a stub takes half a second for each batch. The tests use the fixtures that batchify installs
for pytest. ``batchify.testing`` has the same tools as functions.

Run it with ``python -m pytest examples/test_prices.py``; it needs pytest. It also works with pytest-asyncio (1.4 or
later), in both modes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from batchify import microbatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchify.testing import Recorder

ARTICLES = {"apple": 30, "pear": 45, "plum": 12}


@microbatch(max_size=2, timeout=0.1)
async def price_of(articles: list[str]) -> list[int | KeyError]:
    """Return the prices of articles in cents."""
    await asyncio.sleep(0.5)
    return [ARTICLES.get(article, KeyError(article)) for article in articles]


async def shown(article: str) -> str:
    """Return the text that a page shows for an article."""
    try:
        return f"{await price_of(article) / 100:.2f}"
    except KeyError:
        return "sold out"


@pytest.mark.usefixtures("batchify_inline")
def test_the_results(batchify_virtual_time: Callable[..., str]) -> None:
    """Inline, each call runs the batch function at once: no batches, windows or threads affect the test."""
    assert batchify_virtual_time(shown("apple")) == "0.30"
    assert batchify_virtual_time(shown("pineapple")) == "sold out"


@pytest.mark.usefixtures("batchify_virtual_time")
async def test_the_batches(batchify_recorder: Recorder) -> None:
    """The recorder has the batches and their reasons. Here, the third article waits until a slot is free."""
    assert await asyncio.gather(shown("apple"), shown("pear"), shown("plum")) == ["0.30", "0.45", "0.12"]
    first, second = batchify_recorder.batches
    assert (first.name, first.items, first.reason) == ("price_of", ("apple", "pear"), "full")
    assert (second.items, second.reason) == (("plum",), "slot")


@pytest.mark.usefixtures("batchify_virtual_time")
async def test_the_timing() -> None:
    """In virtual time, the window and the warehouse take exactly their time, and the test takes none."""
    assert await shown("plum") == "0.12"
    assert asyncio.get_running_loop().time() == 0.6

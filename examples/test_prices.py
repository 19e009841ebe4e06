"""Test code that uses batchify: what it computes, what travels together, and when.

The question: how does one test a function that waits for company?

``shown`` is code of an application. It asks for the price of one article at a time, and the warehouse, here a stub that
takes half a second for each question, is asked about several. Installing batchify brings the fixtures that the tests
below use; without pytest, ``batchify.testing`` has the same as functions.

Run it with ``python -m pytest examples/test_prices.py``; it needs pytest. With pytest-asyncio, version 1.4 or later, it
works as it stands, in both of its modes.
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
    """Return what a page shows for an article."""
    try:
        return f"{await price_of(article) / 100:.2f}"
    except KeyError:
        return "sold out"


@pytest.mark.usefixtures("batchify_inline")
def test_what_is_shown(batchify_virtual_time: Callable[..., str]) -> None:
    """Inline, each call is just a call: the test need not know of batches, windows and threads."""
    assert batchify_virtual_time(shown("apple")) == "0.30"
    assert batchify_virtual_time(shown("pineapple")) == "sold out"


@pytest.mark.usefixtures("batchify_virtual_time")
async def test_what_travels_together(batchify_recorder: Recorder) -> None:
    """The recorder has the batches that left, and why. Here the third article had to wait until a slot was free."""
    assert await asyncio.gather(shown("apple"), shown("pear"), shown("plum")) == ["0.30", "0.45", "0.12"]
    first, second = batchify_recorder.batches
    assert (first.name, first.items, first.reason) == ("price_of", ("apple", "pear"), "full")
    assert (second.items, second.reason) == (("plum",), "slot")


@pytest.mark.usefixtures("batchify_virtual_time")
async def test_how_long_it_takes() -> None:
    """In virtual time the window and the warehouse take exactly as long as they say, and the test takes none."""
    assert await shown("plum") == "0.12"
    assert asyncio.get_running_loop().time() == 0.6

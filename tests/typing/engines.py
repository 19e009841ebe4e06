"""Types that checkers infer for the engine classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import assert_type

from batchify import AsyncMicrobatcher, BatchStats, SyncMicrobatcher

if TYPE_CHECKING:
    from numpy.typing import NDArray


def measure(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def measure_or_fail(texts: list[str]) -> list[int | Exception]:
    return [len(text) or ValueError("empty") for text in texts]


def to_array(texts: list[str]) -> NDArray[np.float64]:
    return np.zeros(len(texts))


async def embed(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def a_sync_batcher() -> None:
    batcher = SyncMicrobatcher(measure, 8, 0.002, name="measure", concurrency=2)
    assert_type(batcher, SyncMicrobatcher[str, int])
    assert_type(batcher.submit("x"), int)
    assert_type(batcher.submit_many(["x"]), list[int])
    assert_type(batcher.stats, BatchStats)
    assert_type(batcher.is_running, bool)
    assert_type(SyncMicrobatcher(measure_or_fail).submit("x"), int)
    assert_type(SyncMicrobatcher(to_array).submit("x"), Any)
    assert_type(SyncMicrobatcher[str, int](measure).submit("x"), int)
    with SyncMicrobatcher(measure) as running:
        assert_type(running.submit("x"), int)


async def an_async_batcher() -> None:
    batcher = AsyncMicrobatcher(embed, 8, None, name="embed", concurrency=2)
    assert_type(batcher, AsyncMicrobatcher[str, int])
    assert_type(await batcher.submit("x"), int)
    assert_type(await batcher.submit_many(["x"]), list[int])
    assert_type(batcher.stats, BatchStats)
    assert_type(batcher.is_running, bool)
    async with AsyncMicrobatcher(embed) as running:
        assert_type(await running.submit("x"), int)


async def an_async_batcher_of_a_plain_function() -> None:
    assert_type(await AsyncMicrobatcher(measure).submit("x"), int)
    assert_type(await AsyncMicrobatcher(measure_or_fail).submit_many(["x"]), list[int])
    assert_type(await AsyncMicrobatcher(to_array).submit("x"), Any)

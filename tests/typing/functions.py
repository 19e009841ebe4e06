"""Types that checkers infer for functions and other callables, in every spelling of the decorator."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import assert_type

from batchify import BatchStats, microbatch, rows
from batchify.opentelemetry import traced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence

    from numpy.typing import NDArray


@microbatch
def bare(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
    return [[len(text), add_special] for text in texts]


@microbatch()
def empty(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
    return [[len(text), add_special] for text in texts]


@microbatch(max_size=8, timeout=0.002, concurrency=2, capture_context=True, name="tokenize")
def tokenize(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
    return [[len(text), add_special] for text in texts]


def plain(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
    return [[len(text), add_special] for text in texts]


called = microbatch(plain, max_size=8)
called_bare = microbatch(plain)
called_later = microbatch(max_size=8)(plain)
called_in_steps = microbatch(max_size=8)(timeout=0.002)(plain, max_size=16)


@microbatch
async def async_bare(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
    return [[len(text), add_special] for text in texts]


@microbatch()
async def async_empty(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
    return [[len(text), add_special] for text in texts]


@microbatch(max_size=8, timeout=None, name=None)
async def embed(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
    return [[len(text), add_special] for text in texts]


async def async_plain(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
    return [[len(text), add_special] for text in texts]


async_called = microbatch(async_plain, max_size=8)
async_called_bare = microbatch(async_plain)
async_called_later = microbatch(max_size=8)(async_plain)


def every_spelling_takes_an_item_and_options() -> None:
    assert_type(bare("x"), list[int])
    assert_type(bare("x", add_special=False), list[int])
    assert_type(empty("x", add_special=False), list[int])
    assert_type(tokenize("x", add_special=False), list[int])
    assert_type(called("x", add_special=False), list[int])
    assert_type(called_bare("x", add_special=False), list[int])
    assert_type(called_later("x", add_special=False), list[int])
    assert_type(called_in_steps("x", add_special=False), list[int])


async def every_spelling_is_awaited_if_async() -> None:
    assert_type(await async_bare("x"), list[int])
    assert_type(await async_bare("x", add_special=False), list[int])
    assert_type(await async_empty("x", add_special=False), list[int])
    assert_type(await embed("x", add_special=False), list[int])
    assert_type(await async_called("x", add_special=False), list[int])
    assert_type(await async_called_bare("x", add_special=False), list[int])
    assert_type(await async_called_later("x", add_special=False), list[int])


@microbatch(capture_context=True)
@traced
def traced_bare(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
    return [[len(text), add_special] for text in texts]


@microbatch(capture_context=True)
@traced(provider=None)
async def async_traced(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
    return [[len(text), add_special] for text in texts]


async def a_traced_function_is_of_the_same_type() -> None:
    assert_type(traced_bare("x", add_special=False), list[int])
    assert_type(await async_traced("x", add_special=False), list[int])
    assert_type(traced(plain)(["x"]), list[list[int]])


async def members_of_a_function() -> None:
    assert_type(tokenize.submit("x", add_special=False), Future[list[int]])
    assert_type(tokenize.map(["x", "y"]), list[list[int]])
    assert_type([*tokenize.imap(iter("xy"), 8, add_special=False)], list[list[int]])
    assert_type(tokenize.map(text for text in "xy"), list[list[int]])
    assert_type(await tokenize.acall("x", add_special=False), list[int])
    assert_type(await asyncio.create_task(tokenize.acall("x")), list[int])
    assert_type(tokenize.batch_stats, BatchStats)
    assert_type(tokenize.__name__, str)
    assert_type(tokenize.__qualname__, str)
    assert_type(tokenize.__doc__, str | None)
    for ids in tokenize.__wrapped__(["x"], add_special=False):
        assert_type(ids, list[int])
    assert_type(tokenize.__wrapped__(["x"])[0], list[int])
    assert_type(len(tokenize.__wrapped__(["x"])), int)
    urgent = tokenize.options(priority=1, deadline=0.5)
    assert_type(urgent("x", add_special=False), list[int])
    assert_type(urgent.submit("x"), Future[list[int]])
    assert_type(await urgent.acall("x"), list[int])
    assert_type(await embed.options(deadline=None)("x", add_special=False), list[int])
    tokenize.configure(max_size=8, executor=ThreadPoolExecutor())
    tokenize.reset_stats()
    tokenize.flush()
    with tokenize as itself:
        assert_type(itself("x"), list[int])
    async with tokenize as itself:
        assert_type(itself("x"), list[int])
    tokenize.close()
    await tokenize.aclose()


async def names() -> AsyncIterator[str]:
    yield "x"


async def members_of_an_async_function() -> None:
    assert_type(embed.submit("x", add_special=False), asyncio.Future[list[int]])
    assert_type(await embed.submit("x"), list[int])
    assert_type(await embed.map(["x", "y"]), list[list[int]])
    assert_type([ids async for ids in embed.imap(["x", "y"], 8)], list[list[int]])
    assert_type(await anext(embed.imap(names())), list[int])
    assert_type(await embed.acall("x", add_special=False), list[int])
    assert_type(await asyncio.create_task(embed("x")), list[int])
    assert_type(await asyncio.gather(embed("x"), embed("y")), tuple[list[int], list[int]])
    assert_type(embed.batch_stats, BatchStats)
    assert_type(embed.__name__, str)
    for vector in await embed.__wrapped__(["x"], add_special=False):
        assert_type(vector, list[int])
    embed.reset_stats()
    embed.flush()
    with embed as itself:
        assert_type(await itself("x"), list[int])
    async with embed as itself:
        assert_type(await itself("x"), list[int])
    embed.close()
    await embed.aclose()


def a_function_can_be_passed_as_an_argument() -> None:
    _one: Callable[[str], list[int]] = tokenize
    _coroutine: Callable[[str], Coroutine[Any, Any, list[int]]] = embed


@microbatch
def of_sequences(texts: Sequence[str], scale: float = 1.0) -> tuple[float, ...]:
    return tuple(len(text) * scale for text in texts)


@microbatch
def of_iterables(numbers: Iterable[int | None]) -> Sequence[str | None]:
    return [str(number) for number in numbers]


@microbatch
def arrays(texts: list[str]) -> NDArray[np.float64]:
    return np.zeros(len(texts))


@microbatch
def results_or_exceptions(texts: list[str]) -> list[int | Exception]:
    return [len(text) or ValueError("empty") for text in texts]


@microbatch
async def async_results_or_exceptions(texts: list[str]) -> list[int | Exception]:
    return [len(text) or ValueError("empty") for text in texts]


@microbatch
def untyped_items(items: list[Any]) -> list[int]:
    return [len(item) for item in items]


async def any_sequence_of_results_is_accepted() -> None:
    assert_type(of_sequences("x", 2.0), float)
    assert_type(of_sequences("x", scale=2.0), float)
    assert_type(of_iterables(None), str | None)
    assert_type(of_iterables.map([1, None]), list[str | None])
    assert_type(arrays("x"), Any)
    assert_type(untyped_items(object()), int)


async def an_exception_is_raised_and_no_result() -> None:
    assert_type(results_or_exceptions("x"), int)
    assert_type(results_or_exceptions.map(["x"]), list[int])
    assert_type(await async_results_or_exceptions("x"), int)
    assert_type(await async_results_or_exceptions.submit("x"), int)


class Model:
    def encode_batch(self, texts: list[str], *, pad: bool = False) -> list[int]:
        return [len(text) + pad for text in texts]

    async def encode_later(self, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    def __call__(self, texts: list[str], *, pad: bool = False) -> list[int]:
        return [len(text) + pad for text in texts]


class AsyncModel:
    async def __call__(self, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]


async def other_callables() -> None:
    assert_type(microbatch(Model())("x", pad=True), int)
    assert_type(microbatch(max_size=8)(Model()).submit("x"), Future[int])
    assert_type(await microbatch(AsyncModel())("x"), int)
    assert_type(microbatch(Model().encode_batch)("x", pad=True), int)
    assert_type(microbatch(Model().encode_batch, max_size=8).map(["x"]), list[int])
    assert_type(await microbatch(Model().encode_later, max_size=8)("x"), int)
    assert_type(microbatch(partial(plain, add_special=False))("x"), list[int])
    assert_type(await microbatch(partial(async_plain, add_special=False))("x"), list[int])
    assert_type(microbatch(partial(plain, add_special=False)).map(["x"]), list[list[int]])


def columns(texts: list[str]) -> list[dict[str, list[int]]]:
    return assert_type(rows({"input_ids": [[len(text)] for text in texts]}), list[dict[str, list[int]]])

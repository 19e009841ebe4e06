"""Types that checkers infer for functions and methods of two columns."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from typing_extensions import assert_type

from batchify import microbatch


@microbatch
def score(queries: list[str], docs: list[bytes], *, top_k: int = 10) -> list[float]:
    return [len(query) + len(doc) + top_k for query, doc in zip(queries, docs, strict=True)]


@microbatch(max_size=8)
async def ascore(queries: list[str], docs: list[bytes], top_k: int = 10) -> list[float]:
    return [len(query) + len(doc) + top_k for query, doc in zip(queries, docs, strict=True)]


class Model:
    @microbatch
    def score(self, queries: list[str], docs: list[bytes], *, top_k: int = 10) -> list[float]:
        return [len(query) + len(doc) + top_k for query, doc in zip(queries, docs, strict=True)]

    @microbatch(max_size=8)
    async def ascore(self, queries: list[str], docs: list[bytes], *, top_k: int = 10) -> list[float]:
        return [len(query) + len(doc) + top_k for query, doc in zip(queries, docs, strict=True)]


def a_call_gives_one_of_each() -> None:
    assert_type(score("q", b"d"), float)
    assert_type(score("q", b"d", top_k=3), float)
    assert_type(score.submit("q", b"d"), Future[float])
    assert_type(score.map([("q", b"d")], top_k=3), list[float])
    assert_type([*score.imap([("q", b"d")], top_k=3)], list[float])


async def an_async_call_gives_one_of_each() -> None:
    assert_type(await score.acall("q", b"d"), float)
    assert_type(await ascore("q", b"d", 3), float)
    assert_type(ascore.submit("q", b"d"), asyncio.Future[float])
    assert_type(await ascore.map([("q", b"d")]), list[float])


async def a_method_is_a_function_of_its_instance() -> None:
    model = Model()
    assert_type(model.score("q", b"d", top_k=3), float)
    assert_type(model.score.map([("q", b"d")]), list[float])
    assert_type(await model.ascore("q", b"d"), float)
    assert_type(Model.score(model, "q", b"d"), float)

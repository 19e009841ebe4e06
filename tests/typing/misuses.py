"""Errors that checkers report. Each marked line is wrong, and checkers report a mark without an error, too."""

from __future__ import annotations

import batchify
from batchify import AsyncMicrobatcher, SyncMicrobatcher, microbatch


def plain(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
    return [[len(text), add_special] for text in texts]


async def async_plain(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
    return [[len(text), add_special] for text in texts]


tokenize = microbatch(plain)
embed = microbatch(async_plain)


class Model:
    @microbatch
    def tokenize(self, texts: list[str], *, add_special: bool = True) -> list[list[int]]:
        return [[len(text), add_special] for text in texts]

    @microbatch
    async def embed(self, texts: list[str], *, add_special: bool = True) -> list[list[int]]:
        return [[len(text), add_special] for text in texts]

    @classmethod
    @microbatch
    def count(cls, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]


async def wrong_items(model: Model) -> None:
    tokenize(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is a str
    tokenize(["x"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # one item, no list
    tokenize.submit(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as in a call
    tokenize.map([3])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]  # all items are str
    await tokenize.acall(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as in a call
    await embed(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is a str
    embed.submit(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as in a call
    embed.imap([3])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]  # all items are str
    await embed.map([3])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]  # all items are str
    model.tokenize(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is a str
    await model.embed(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is a str
    Model.tokenize(model, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is a str
    Model.tokenize(3, "x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an instance is a Model
    Model.count(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is a str


async def missing_items(model: Model) -> None:
    tokenize()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # no item
    tokenize(add_special=False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # an option is no item
    await embed()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # no item
    model.tokenize()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # no item
    Model.tokenize(model)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # no item


def wrong_views() -> None:
    tokenize.options(priority="high")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a number
    tokenize.options(timeout=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # of the decorator
    tokenize.options(deadline=1)(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is a str


async def wrong_call_options(model: Model) -> None:
    tokenize("x", add_specials=False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # misspelt
    tokenize("x", add_special="no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a bool
    tokenize.submit("x", add_specials=False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # misspelt
    await tokenize.acall("x", add_specials=False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # misspelt
    await embed("x", add_specials=False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # misspelt
    model.tokenize("x", add_specials=False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # misspelt


async def wrong_uses_of_results(model: Model) -> None:
    _whole: int = tokenize("x")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # a list of int
    _unawaited: list[int] = embed("x")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # a coroutine
    _of_method: str = model.tokenize("x")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # a list of int
    _several: list[int] = tokenize.map(["x"])  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # a list of results
    await tokenize("x")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]  # of a def function


def wrong_options() -> None:
    microbatch(plain, max_sise=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # misspelt
    microbatch(plain, max_size="3")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]  # an int
    microbatch(plain, 3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # by name only
    microbatch(max_sise=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # misspelt
    microbatch(max_size=3)(plain, max_sise=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # misspelt


def wrong_names() -> None:
    batchify.microbach(plain)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # misspelt


def wrong_batch_functions() -> None:
    def one_item(text: str) -> list[int]:
        return [len(text)]

    def one_result(texts: list[str]) -> int:
        return len(texts)

    def mapping(texts: list[str]) -> dict[str, int]:
        return {text: len(text) for text in texts}

    def unordered(texts: list[str]) -> set[int]:
        return {len(text) for text in texts}

    microbatch(one_item)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  # takes no list
    microbatch(one_result)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  # returns no list
    microbatch(mapping)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  # in no order
    microbatch(unordered)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  # in no order
    microbatch(max_size=3)(mapping)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  # in no order
    microbatch(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  # no function
    microbatch(mapping, max_size=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  # in no order
    SyncMicrobatcher(mapping)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # in no order
    AsyncMicrobatcher(mapping)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # in no order
    SyncMicrobatcher(async_plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # async def


async def wrong_uses_of_engines() -> None:
    SyncMicrobatcher(plain).submit(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is a str
    SyncMicrobatcher(plain, max_size=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # of the decorator
    await AsyncMicrobatcher(async_plain).submit(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is a str
    _whole: int = await AsyncMicrobatcher(async_plain).submit("x")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # a list of int

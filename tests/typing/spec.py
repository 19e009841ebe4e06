"""User-like code: what the type checkers infer beyond one column, and that a decorated method fits a protocol."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from typing_extensions import assert_type

from batchify import Done, microbatch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence

V = TypeVar("V")


# Functions of any type of items that return the same type.


@microbatch
def unique(values: list[V]) -> list[V]:
    return values


@microbatch(max_size=8)
async def aunique(values: list[V], *, retries: int = 3) -> list[V | Exception]:
    return [value for value in values if retries]


called_unique = microbatch(unique.__wrapped__)


async def a_generic_function_returns_the_type_of_its_item() -> None:
    assert_type(unique("x"), str)
    assert_type(unique(3), int)
    assert_type(unique.submit(3), Future[int])
    assert_type(unique.map(["x", "y"]), list[str])
    assert_type(await unique.acall("x"), str)
    assert_type(unique.options(priority=1)("x"), str)
    assert_type(await aunique("x", retries=1), str)
    assert_type(await aunique(b"x"), bytes)
    assert_type(aunique.submit(3), asyncio.Future[int])
    assert_type(await aunique.map([1, 2], retries=1), list[int])
    aunique("x", retry=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # misspelt


# Untyped items and results stay untyped.


@microbatch
def untyped(items: list[Any]) -> list[Any]:
    return items


@microbatch
def typed_items(texts: list[str]) -> list[Any]:
    return [*texts]


def untyped_functions() -> None:
    assert_type(untyped("x"), Any)
    assert_type(typed_items("x"), Any)
    typed_items(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is a str


# Three columns, and options beside columns.


@microbatch
def triples(queries: list[str], docs: list[bytes], weights: list[float], *, top_k: int = 10) -> list[int]:
    return [top_k for _ in zip(queries, docs, weights, strict=True)]


@microbatch
async def atriples(queries: list[str], docs: list[bytes], weights: list[float], top_k: int = 10) -> list[int]:
    return [top_k for _ in zip(queries, docs, weights, strict=True)]


@microbatch
async def stream_triples(queries: list[str], docs: list[bytes], weights: list[float]) -> AsyncIterator[list[int]]:
    yield [0 for _ in zip(queries, docs, weights, strict=True)]


async def three_columns(model: Model) -> None:
    assert_type(triples("q", b"d", 0.5), int)
    assert_type(triples("q", b"d", 0.5, top_k=3), int)
    assert_type(triples.submit("q", b"d", 0.5), Future[int])
    assert_type(triples.map([("q", b"d", 0.5)], top_k=3), list[int])
    assert_type(await triples.acall("q", b"d", 0.5), int)
    assert_type(await atriples("q", b"d", 0.5, 3), int)
    assert_type(await atriples.map([("q", b"d", 0.5)], 3), list[int])
    assert_type(await anext(stream_triples("q", b"d", 0.5)), int)
    assert_type(model.triples("q", b"d", 0.5, top_k=3), int)
    triples("q", b"d")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # one column is missing
    triples("q", b"d", "w")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a number
    triples.map([("q", b"d")])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]  # one column is missing


@microbatch
def stops(prompts: list[str], stop: Sequence[str] | None = None, seed: object = None) -> list[int]:
    return [len(prompt) + len(stop or "") for prompt in prompts if seed]


@microbatch
async def astops(prompts: list[str], stop: list[str] | None = None) -> list[int]:
    return [len(prompt) + len(stop or "") for prompt in prompts]


@microbatch
def required(texts: list[str], *, language: str) -> list[int]:
    return [len(text + language) for text in texts]


@microbatch
def required_pair(texts: list[str], docs: list[str], *, language: str) -> list[int]:
    return [len(text + language) for text in texts + docs]


async def a_parameter_with_a_default_is_an_option(model: Model) -> None:
    assert_type(stops("x"), int)
    assert_type(stops("x", ("a", "b"), seed=3), int)
    assert_type(stops.map(["x"], stop=("a",)), list[int])
    assert_type(await astops("x"), int)
    assert_type(model.stops("x"), int)
    assert_type(required("x", language="en"), int)
    assert_type(required.map(["x"], language="en"), list[int])
    assert_type(required_pair("x", "y", language="en"), int)
    required("x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # an option is missing
    required.map(["x"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # an option is missing


def the_options_of_map_are_checked(model: Model) -> None:
    triples.map([("q", b"d", 0.5)], top=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # misspelt
    stops.map(["x"], stop=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a sequence
    unique.map(["x"], top_k=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # no option
    model.stops.map(["x"], top_k=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # no option
    samples.map(["x"], temp=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # misspelt


# Any options.


@microbatch
def fetch(urls: list[str], **params: str) -> list[bytes]:
    return [(url + "".join(params)).encode() for url in urls]


@microbatch(max_size=8)
async def afetch(urls: list[str], *, retries: int = 3, **params: str) -> list[bytes]:
    return [(url + "".join(params)).encode() for url in urls if retries]


@microbatch
def samples(prompts: list[str], *, temperature: float = 0.0) -> Iterator[list[str]]:
    yield [prompt * int(temperature) for prompt in prompts]


@microbatch
async def any_samples(prompts: list[str], **params: float) -> AsyncIterator[list[str | Done]]:
    yield [prompt for prompt in prompts if params]


async def a_function_takes_any_options(model: Model) -> None:
    assert_type(fetch("u"), bytes)
    assert_type(fetch("u", page="2", lang="en"), bytes)
    assert_type(fetch.submit("u", page="2"), Future[bytes])
    assert_type(fetch.map(["u"], page="2"), list[bytes])
    assert_type(await fetch.acall("u", page="2"), bytes)
    assert_type(await afetch("u", retries=1, page="2"), bytes)
    assert_type(await anext(any_samples("x", temperature=0.5)), str)
    assert_type(model.fetch("u", page="2"), bytes)
    fetch(3, page="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is a str
    fetch("u", page=2)  # pyright: ignore[reportArgumentType]  # a str; mypy does not check these options


# Exceptions among the results.


@microbatch
def parse(texts: list[str]) -> list[str | ValueError]:
    return [text or ValueError("empty") for text in texts]


@microbatch
async def aparse(texts: list[str]) -> list[str | KeyError | ValueError | None]:
    return [text or ValueError("empty") for text in texts]


@microbatch
def stream_parse(texts: list[str]) -> Iterator[list[str | ValueError | Done]]:
    yield [text or ValueError("empty") for text in texts]


async def exceptions_are_raised_and_no_results(model: Model) -> None:
    assert_type(parse("x"), str)
    assert_type(parse.submit("x"), Future[str])
    assert_type(parse.map(["x"]), list[str])
    assert_type(await parse.acall("x"), str)
    assert_type(await aparse("x"), str | None)
    assert_type(next(stream_parse("x")), str)
    assert_type(model.parse("x"), str)


# Methods, alone and as members of protocols.


class Model:
    @microbatch
    def triples(self, queries: list[str], docs: list[bytes], weights: list[float], *, top_k: int = 10) -> list[int]:
        return [top_k for _ in zip(queries, docs, weights, strict=True)]

    @microbatch
    def stops(self, prompts: list[str], stop: Sequence[str] = ()) -> list[int]:
        return [len(prompt) + len(stop) for prompt in prompts]

    @microbatch
    def fetch(self, urls: list[str], **params: str) -> list[bytes]:
        return [(url + "".join(params)).encode() for url in urls]

    @microbatch
    def parse(self, texts: list[str]) -> list[str | ValueError]:
        return [text or ValueError("empty") for text in texts]

    @microbatch
    def encode(self, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @microbatch(max_size=8)
    async def aencode(self, texts: list[str], *, pad: bool = False) -> list[int]:
        return [len(text) + pad for text in texts]

    @microbatch
    async def stream(self, texts: list[str]) -> AsyncIterator[list[int]]:
        yield [len(text) for text in texts]


class Encoder(Protocol):
    def encode(self, text: str, /) -> int: ...
    async def aencode(self, text: str, /) -> int: ...
    def stream(self, text: str, /) -> AsyncIterator[int]: ...


class Submits(Protocol):
    def submit(self, text: str, /) -> Future[int]: ...


class HasSubmits(Protocol):
    @property
    def encode(self) -> Submits: ...


class Decorated(Protocol):
    @microbatch
    def encode(self, texts: list[str]) -> list[int]: ...


def a_decorated_method_is_a_member_of_a_protocol(model: Model, decorated: Decorated) -> None:
    _encoder: Encoder = model
    _submits: HasSubmits = model
    _decorated: Decorated = model
    assert_type(decorated.encode("x"), int)
    assert_type(decorated.encode.submit("x"), Future[int])


# Mappings and lifespans.


@microbatch(keyed=True, max_size=8)
def users(ids: list[int], *, table: str = "users") -> dict[int, str]:
    return dict.fromkeys(ids, table)


@microbatch(keyed=True)
async def ausers(ids: list[int]) -> Mapping[int, str | KeyError]:
    return dict.fromkeys(ids, "name")


def plain_users(ids: list[int]) -> Mapping[int, str]:
    return dict.fromkeys(ids, "name")


def pair_users(ids: list[int], regions: list[str], *, table: str = "users") -> dict[tuple[int, str], bytes]:
    return {pair: table.encode() for pair in zip(ids, regions, strict=True)}


called_users = microbatch(plain_users, keyed=True)
called_pairs = microbatch(pair_users, keyed=True, max_size=8)


class Table:
    @microbatch(keyed=True)
    def user(self, ids: list[int]) -> dict[int, str]:
        return dict.fromkeys(ids, "name")

    @microbatch(keyed=True)
    async def auser(self, ids: list[int]) -> dict[int, str]:
        return dict.fromkeys(ids, "name")


async def a_mapping_gives_the_result_of_the_item(table: Table) -> None:
    assert_type(users(1), str)
    assert_type(users(1, table="u"), str)
    assert_type(users.map([1, 2], table="u"), list[str])
    assert_type(users.submit(1), Future[str])
    assert_type(await ausers(1), str)
    assert_type(called_users(1), str)
    assert_type(called_pairs(1, "eu", table="u"), bytes)
    assert_type(called_pairs.map([(1, "eu")]), list[bytes])
    assert_type(table.user(1), str)
    assert_type(await table.auser(1), str)
    users("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is an int


@contextmanager
def connection() -> Generator[int, None, None]:
    yield 3


@asynccontextmanager
async def aconnection() -> AsyncGenerator[int, None]:
    yield 3


@microbatch(lifespan=connection)
def with_connection(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@microbatch(lifespan=aconnection)
async def with_aconnection(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


async def a_lifespan_is_a_function_that_returns_a_context_manager() -> None:
    assert_type(with_connection("x"), int)
    assert_type(await with_aconnection("x"), int)
    microbatch(lifespan=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]  # a function


# Columns have no name for type checkers, which cannot change the type of a parameter and keep its name.


def columns_are_passed_by_position() -> None:
    parse(texts="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # run time takes it

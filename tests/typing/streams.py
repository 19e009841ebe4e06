"""Types that checkers infer for generator functions and methods, in every spelling of the decorator."""

from __future__ import annotations

from contextlib import aclosing, closing
from functools import partial
from typing import TYPE_CHECKING, Any

from typing_extensions import assert_type

from batchify import DONE, AsyncMicrobatcher, BatchStats, Done, SyncMicrobatcher, microbatch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence


@microbatch
async def bare(prompts: list[str], *, temperature: float = 0.0) -> AsyncIterator[list[int]]:
    yield [len(prompt) + int(temperature) for prompt in prompts]


@microbatch()
async def empty(prompts: list[str], *, temperature: float = 0.0) -> AsyncIterator[list[int]]:
    yield [len(prompt) + int(temperature) for prompt in prompts]


@microbatch(max_size=8, timeout=0.002)
async def generate(prompts: list[str], *, temperature: float = 0.0) -> AsyncIterator[list[int | Done]]:
    yield [len(prompt) or DONE for prompt in prompts]


async def plain(prompts: list[str], *, temperature: float = 0.0) -> AsyncGenerator[Sequence[int], None]:
    yield [len(prompt) + int(temperature) for prompt in prompts]


called = microbatch(plain, max_size=8)
called_later = microbatch(max_size=8)(plain)


@microbatch
def sync_bare(prompts: list[str], *, temperature: float = 0.0) -> Iterator[list[int]]:
    yield [len(prompt) + int(temperature) for prompt in prompts]


@microbatch(max_size=8)
def sync_generate(prompts: list[str], *, temperature: float = 0.0) -> Iterator[list[int | Exception | Done]]:
    yield [len(prompt) or DONE for prompt in prompts]


def sync_plain(prompts: list[str], *, temperature: float = 0.0) -> Generator[list[int], None, None]:
    yield [len(prompt) + int(temperature) for prompt in prompts]


sync_called = microbatch(sync_plain, max_size=8)
sync_called_later = microbatch(max_size=8)(sync_plain)


async def every_spelling_streams_the_values() -> None:
    async for value in bare("x"):
        assert_type(value, int)
    async for value in empty("x", temperature=0.5):
        assert_type(value, int)
    async for value in called("x", temperature=0.5):
        assert_type(value, int)
    async for value in called_later("x", temperature=0.5):
        assert_type(value, int)


def every_spelling_of_a_def_function_iterates_the_values() -> None:
    for value in sync_bare("x"):
        assert_type(value, int)
    for value in sync_called("x", temperature=0.5):
        assert_type(value, int)
    for value in sync_called_later("x", temperature=0.5):
        assert_type(value, int)


async def done_is_no_value() -> None:
    async for value in generate("x", temperature=0.5):
        assert_type(value, int)
    for value in sync_generate("x", temperature=0.5):
        assert_type(value, int)
    assert_type(await generate.map(["x"]), list[list[int]])
    assert_type([ids async for ids in generate.imap(["x"])], list[list[int]])


async def members_of_an_async_generator_function() -> None:
    async for value in generate.submit("x", temperature=0.5):
        assert_type(value, int)
    async for value in generate.acall("x"):
        assert_type(value, int)
    async with aclosing(generate("x")) as stream:
        assert_type(await stream.__anext__(), int)
    assert_type(await anext(generate("x")), int)
    assert_type(await bare.map(["x", "y"], temperature=0.5), list[list[int]])
    assert_type(generate.batch_stats, BatchStats)
    async with generate as itself:
        assert_type(await anext(itself("x")), int)
    generate.flush()
    await generate.aclose()


async def members_of_a_generator_function() -> None:
    for value in sync_generate.submit("x", temperature=0.5):
        assert_type(value, int)
    async for value in sync_generate.acall("x"):
        assert_type(value, int)
    with closing(sync_generate("x")) as stream:
        assert_type(next(stream), int)
    assert_type(sync_generate.map(["x", "y"]), list[list[int]])
    assert_type(next(sync_generate.imap(["x", "y"])), list[int])
    assert_type(sync_generate.batch_stats, BatchStats)
    sync_generate.close()


def a_function_can_be_passed_as_an_argument() -> None:
    _async: Callable[[str], AsyncIterator[int]] = generate
    _sync: Callable[[str], Iterator[int]] = sync_generate


class Model:
    @microbatch
    async def generate(self, prompts: list[str], *, temperature: float = 0.0) -> AsyncIterator[list[int]]:
        yield [len(prompt) + int(temperature) for prompt in prompts]

    @microbatch(max_size=8)
    def sync_generate(self, prompts: list[str], *, temperature: float = 0.0) -> Iterator[list[int | Done]]:
        yield [len(prompt) or DONE for prompt in prompts]

    @classmethod
    @microbatch
    async def class_outside(cls, prompts: list[str]) -> AsyncIterator[list[int]]:
        yield [len(prompt) for prompt in prompts]

    @microbatch(max_size=8)
    @classmethod
    def class_inside(cls, prompts: list[str]) -> Iterator[list[int]]:
        yield [len(prompt) for prompt in prompts]

    @staticmethod
    @microbatch(max_size=8)
    def static_outside(prompts: list[str]) -> Iterator[list[int]]:
        yield [len(prompt) for prompt in prompts]

    @microbatch
    @staticmethod
    async def static_inside(prompts: list[str]) -> AsyncIterator[list[int]]:
        yield [len(prompt) for prompt in prompts]

    def stream(self, prompts: list[str]) -> Iterator[list[int]]:
        yield [len(prompt) for prompt in prompts]


async def methods(model: Model) -> None:
    async for value in model.generate("x", temperature=0.5):
        assert_type(value, int)
    async for value in Model.generate(model, "x", temperature=0.5):
        assert_type(value, int)
    for value in model.sync_generate("x", temperature=0.5):
        assert_type(value, int)
    for value in Model.sync_generate(model, "x"):
        assert_type(value, int)
    assert_type(await anext(model.generate.submit("x")), int)
    assert_type(await model.generate.map(["x"]), list[list[int]])
    async for value in Model.class_outside("x"):
        assert_type(value, int)
    for value in model.class_inside("x"):
        assert_type(value, int)
    for value in Model.static_outside("x"):
        assert_type(value, int)
    async for value in model.static_inside("x"):
        assert_type(value, int)
    assert_type(next(microbatch(model.stream, max_size=8)("x")), int)


@microbatch
def pairs(prompts: list[str], seeds: list[int], *, temperature: float = 0.0) -> Iterator[list[float]]:
    yield [len(prompt) + seed + temperature for prompt, seed in zip(prompts, seeds, strict=True)]


@microbatch
async def async_pairs(prompts: list[str], seeds: list[int]) -> AsyncIterator[list[float]]:
    yield [len(prompt) + seed for prompt, seed in zip(prompts, seeds, strict=True)]


async def several_columns() -> None:
    assert_type(next(pairs("x", 1, temperature=0.5)), float)
    assert_type(pairs.map([("x", 1)]), list[list[float]])
    assert_type(await anext(async_pairs("x", 1)), float)


def in_part(prompts: list[str], *, temperature: float = 0.0) -> Iterator[list[int]]:
    yield [len(prompt) + int(temperature) for prompt in prompts]


async def async_in_part(prompts: list[str], *, temperature: float = 0.0) -> AsyncIterator[list[int]]:
    yield [len(prompt) + int(temperature) for prompt in prompts]


async def partials() -> None:
    assert_type(next(microbatch(partial(in_part, temperature=0.5))("x")), int)
    assert_type(await anext(microbatch(partial(async_in_part, temperature=0.5))("x")), int)


class Speaker:
    @microbatch
    def read(self, texts: list[str], *, voice: str) -> Iterator[list[int]]:
        yield [len(text + voice) for text in texts]

    @microbatch
    async def speak(self, texts: list[str], *, voice: str) -> AsyncIterator[list[int]]:
        yield [len(text + voice) for text in texts]


@microbatch
def read(texts: list[str], *, voice: str) -> Iterator[list[int]]:
    yield [len(text + voice) for text in texts]


@microbatch
async def speak(texts: list[str], *, voice: str) -> AsyncIterator[list[int]]:
    yield [len(text + voice) for text in texts]


async def an_option_without_a_default(speaker: Speaker) -> None:
    assert_type(next(read("x", voice="alto")), int)
    assert_type(read.map(["x"], voice="alto"), list[list[int]])
    assert_type(await anext(speak("x", voice="alto")), int)
    assert_type(next(speaker.read("x", voice="alto")), int)
    assert_type(await anext(speaker.speak("x", voice="alto")), int)
    read("x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # an option is missing
    speak("x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # an option is missing
    speaker.read("x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # an option is missing
    speaker.speak("x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # an option is missing


@microbatch
def untyped(items: list[Any]) -> Iterator[list[int]]:
    yield [len(item) for item in items]


def untyped_items() -> None:
    assert_type(next(untyped(object())), int)


# Each marked line below is wrong, and checkers report a mark without an error, too.


async def wrong_uses(model: Model) -> None:
    generate(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is a str
    generate("x", temperatur=0.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # misspelt
    sync_generate.submit(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # an item is a str
    model.generate("x", temperature="hot")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a float
    await generate("x")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]  # a stream
    list(generate("x"))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]  # async for
    _first: str = next(sync_generate("x"))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # an int


def wrong_generator_functions() -> None:
    def single(texts: list[str]) -> Iterator[int]:
        yield len(texts)

    def mapping(texts: list[str]) -> Iterator[dict[str, int]]:
        yield {text: len(text) for text in texts}

    microbatch(single)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  # yields no list
    microbatch(mapping)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  # in no order
    SyncMicrobatcher(in_part)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # only decorated ones stream
    AsyncMicrobatcher(async_in_part)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as above

"""Types that checkers infer for methods, accessed through an instance, from the class and from a subclass."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from concurrent.futures import Future
from typing import Generic, TypeVar

from typing_extensions import assert_type, override

from batchify import BatchStats, microbatch

V = TypeVar("V")


class Model:
    @microbatch
    def tokenize(self, texts: list[str], *, add_special: bool = True) -> list[list[int]]:
        assert_type(self.tokenize("x"), list[int])
        return [[len(text), add_special] for text in texts]

    @microbatch(max_size=8)
    async def embed(self, texts: list[str], *, add_special: bool = True) -> list[list[int]]:
        return [[len(text), add_special] for text in texts]

    @classmethod
    @microbatch
    def class_outside(cls, texts: list[str], *, add_special: bool = True) -> list[list[int]]:
        return [[len(text), add_special] for text in texts]

    @microbatch(max_size=8)
    @classmethod
    def class_inside(cls, texts: list[str], *, add_special: bool = True) -> list[list[int]]:
        return [[len(text), add_special] for text in texts]

    @classmethod
    @microbatch(max_size=8)
    async def async_class_outside(cls, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @microbatch
    @classmethod
    async def async_class_inside(cls, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @staticmethod
    @microbatch
    def static_outside(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
        return [[len(text), add_special] for text in texts]

    @microbatch(max_size=8)
    @staticmethod
    def static_inside(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
        return [[len(text), add_special] for text in texts]

    @staticmethod
    @microbatch(max_size=8)
    async def async_static_outside(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @microbatch
    @staticmethod
    async def async_static_inside(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]


async def a_method_of_an_instance(model: Model) -> None:
    assert_type(model.tokenize("x"), list[int])
    assert_type(model.tokenize("x", add_special=False), list[int])
    assert_type(model.tokenize.submit("x", add_special=False), Future[list[int]])
    assert_type(model.tokenize.map(["x"]), list[list[int]])
    assert_type(await model.tokenize.acall("x"), list[int])
    assert_type(model.tokenize.batch_stats, BatchStats)
    assert_type(model.tokenize.__wrapped__(["x"], add_special=False)[0], list[int])
    with model.tokenize as method:
        assert_type(method("x"), list[int])


async def an_async_method_of_an_instance(model: Model) -> None:
    assert_type(await model.embed("x", add_special=False), list[int])
    assert_type(model.embed.submit("x"), asyncio.Future[list[int]])
    assert_type(await model.embed.map(["x"]), list[list[int]])
    assert_type(await model.embed.acall("x"), list[int])
    assert_type((await model.embed.__wrapped__(["x"]))[0], list[int])
    async with model.embed as method:
        assert_type(await method("x"), list[int])


async def a_method_of_its_class(model: Model) -> None:
    assert_type(Model.tokenize(model, "x", add_special=False), list[int])
    assert_type(await Model.embed(model, "x", add_special=False), list[int])
    assert_type(Model.tokenize.batch_stats, BatchStats)
    assert_type(Model.tokenize.__name__, str)
    assert_type(Model.tokenize.__wrapped__(model, ["x"], add_special=False)[0], list[int])
    assert_type((await Model.embed.__wrapped__(model, ["x"]))[0], list[int])
    Model.tokenize.flush()
    Model.tokenize.close()
    await Model.embed.aclose()


async def class_methods(model: Model) -> None:
    assert_type(Model.class_outside("x", add_special=False), list[int])
    assert_type(model.class_outside("x", add_special=False), list[int])
    assert_type(Model.class_outside.submit("x"), Future[list[int]])
    assert_type(Model.class_inside("x", add_special=False), list[int])
    assert_type(model.class_inside("x", add_special=False), list[int])
    assert_type(Model.class_inside.map(["x"]), list[list[int]])
    assert_type(Model.class_inside.batch_stats, BatchStats)
    assert_type(await Model.async_class_outside("x"), int)
    assert_type(await model.async_class_inside("x"), int)


async def static_methods(model: Model) -> None:
    assert_type(Model.static_outside("x", add_special=False), list[int])
    assert_type(model.static_outside("x", add_special=False), list[int])
    assert_type(Model.static_outside.submit("x"), Future[list[int]])
    assert_type(Model.static_inside("x", add_special=False), list[int])
    assert_type(model.static_inside("x", add_special=False), list[int])
    assert_type(Model.static_inside.map(["x"]), list[list[int]])
    assert_type(Model.static_inside.batch_stats, BatchStats)
    assert_type(await Model.async_static_outside("x"), int)
    assert_type(await model.async_static_inside("x"), int)


class Better(Model):
    @override
    @microbatch
    def tokenize(self, texts: list[str], *, add_special: bool = True) -> list[list[int]]:
        return [super(Better, self).tokenize(text, add_special=add_special) for text in texts]

    @override
    @microbatch(max_size=16)
    async def embed(self, texts: list[str], *, add_special: bool = True) -> list[list[int]]:
        return [await super(Better, self).embed(text, add_special=add_special) for text in texts]

    @override
    @classmethod
    @microbatch
    def class_outside(cls, texts: list[str], *, add_special: bool = True) -> list[list[int]]:
        return [[len(text), add_special] for text in texts]

    @override
    @microbatch
    @staticmethod
    def static_inside(texts: list[str], *, add_special: bool = True) -> list[list[int]]:
        return [[len(text), add_special] for text in texts]


async def a_method_of_a_subclass(model: Better) -> None:
    assert_type(model.tokenize("x"), list[int])
    assert_type(await model.embed("x"), list[int])
    assert_type(model.class_inside("x"), list[int])
    assert_type(Model.tokenize(model, "x"), list[int])
    assert_type(Better.tokenize(model, "x"), list[int])


class Translator:
    @microbatch
    def translate(self, texts: list[str], *, language: str) -> list[int]:
        return [len(text + language) for text in texts]

    @microbatch
    async def detect(self, texts: list[str], *, language: str) -> list[bool]:
        return [text == language for text in texts]


async def an_option_without_a_default(translator: Translator) -> None:
    assert_type(translator.translate("x", language="en"), int)
    assert_type(translator.translate.map(["x"], language="en"), list[int])
    assert_type(await translator.detect("x", language="en"), bool)
    translator.translate("x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # an option is missing
    await translator.detect("x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # an option is missing


class Base(ABC):
    @microbatch
    @abstractmethod
    def tokenize(self, texts: list[str]) -> list[int]: ...


class Derived(Base):
    @microbatch
    def tokenize(self, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]


class Cache(Generic[V]):
    @microbatch
    def load(self, keys: list[str]) -> list[V]:
        raise NotImplementedError

    @microbatch
    async def save(self, values: list[V]) -> list[bool]:
        raise NotImplementedError


async def a_method_of_a_generic_class(cache: Cache[bytes]) -> None:
    assert_type(cache.load("x"), bytes)
    assert_type(cache.load.submit("x"), Future[bytes])
    assert_type(Cache[bytes].load(cache, "x"), bytes)
    assert_type(await cache.save(b"x"), bool)

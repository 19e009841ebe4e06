"""What checkers refuse. Each line is wrong, and an ignore that is not needed is an error in its turn."""

from __future__ import annotations

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
    tokenize(3)
    tokenize(["x"])
    tokenize.submit(3)
    tokenize.map([3])
    tokenize.map("x", "y")
    await tokenize.acall(3)
    await embed(3)
    embed.submit(3)
    await embed.map([3])
    model.tokenize(3)
    await model.embed(3)
    Model.tokenize(model, 3)
    Model.tokenize(3, "x")
    Model.count(3)


async def missing_items(model: Model) -> None:
    tokenize()
    tokenize(add_special=False)
    await embed()
    model.tokenize()
    Model.tokenize(model)


async def wrong_call_options(model: Model) -> None:
    tokenize("x", add_specials=False)
    tokenize("x", add_special="no")
    tokenize("x", False)
    tokenize.submit("x", add_specials=False)
    await embed("x", add_specials=False)
    model.tokenize("x", add_specials=False)


async def wrong_uses_of_results(model: Model) -> None:
    whole: int = tokenize("x")
    unawaited: list[int] = embed("x")
    of_method: str = model.tokenize("x")
    several: list[int] = tokenize.map(["x"])
    print(whole, unawaited, of_method, several)


def wrong_options() -> None:
    microbatch(plain, max_sise=3)
    microbatch(plain, max_size="3")
    microbatch(max_sise=3)
    microbatch(plain, 3)


def wrong_batch_functions() -> None:
    def one_item(text: str) -> list[int]:
        return [len(text)]

    def one_result(texts: list[str]) -> int:
        return len(texts)

    def mapping(texts: list[str]) -> dict[str, int]:
        return {text: len(text) for text in texts}

    def unordered(texts: list[str]) -> set[int]:
        return {len(text) for text in texts}

    microbatch(one_item)
    microbatch(one_result)
    microbatch(mapping)
    microbatch(unordered)
    microbatch(max_size=3)(mapping)
    SyncMicrobatcher(mapping)
    AsyncMicrobatcher(mapping)
    SyncMicrobatcher(async_plain)


async def wrong_uses_of_engines() -> None:
    SyncMicrobatcher(plain).submit(3)
    SyncMicrobatcher(plain, max_size=3)
    await AsyncMicrobatcher(async_plain).submit(3)
    wrong: int = await AsyncMicrobatcher(async_plain).submit("x")
    print(wrong)

"""Stream generated texts to many readers, one character at a time.

This example shows how many steps a model takes to write several texts in one batch, and that each reader gets its own
text.

A language model writes in steps: it gets the text so far, and returns the next character. This model is a table of the
characters that follow each sequence of six characters in the help pages of Python. All texts of a batch advance by one
character in each step, and each reader gets its characters as they are written. A stream ends with the sentence. One
reader leaves after the first word, which does not affect the others.

The example counts steps and does not compare times, because this model looks up one character after the other. A step
of a neural network takes about as long for dozens of texts as for one, so there each saved step saves time.

Run it with ``python examples/stream.py``; it needs no other package.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from contextlib import aclosing
from pydoc_data.topics import topics
from random import Random
from typing import TYPE_CHECKING

from batchify import DONE, Done, microbatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# The number of characters that the model looks back, and the maximum number that it writes.
CONTEXT = 6
LENGTH = 300
PROMPTS = ("The class ", "A function ", "When the ", "If the obj", "An except", "The yield ", "Modules ", "Note that ")
IMPATIENT = "The value "

# By sequence of characters: the characters that follow it, as often as they do.
followers: defaultdict[str, list[str]] = defaultdict(list)
# The number of texts in each step of the model.
steps: list[int] = []


def learn() -> int:
    """Learn from the help pages, and return their number of characters."""
    text = " ".join(" ".join(topics.values()).split())
    # The beginning is repeated at the end, so that every sequence has a follower.
    extended = text + text[:CONTEXT]
    for end in range(CONTEXT, len(extended)):
        followers[extended[end - CONTEXT : end]].append(extended[end])
    return len(text)


def step(texts: list[str], sources: list[Random]) -> list[str]:
    """Return the next character of each text: one step of the model."""
    steps.append(len(texts))
    return [source.choice(followers[text[-CONTEXT:]]) for text, source in zip(texts, sources, strict=True)]


@microbatch(max_size=64)
async def write(prompts: list[str], *, seed: int = 0) -> AsyncIterator[list[str | Done]]:
    """Continue each prompt to the end of the sentence."""
    texts = list(prompts)
    sources = [Random(f"{seed} {prompt}") for prompt in prompts]  # noqa: S311  # nothing here is secret
    for _ in range(LENGTH):
        characters = step(texts, sources)
        yield [DONE if text.endswith(". ") else character for text, character in zip(texts, characters, strict=True)]
        texts = [text + character for text, character in zip(texts, characters, strict=True)]
        # The readers run now; a real model would compute in a thread.
        await asyncio.sleep(0)


async def read(prompt: str) -> str:
    """Return the continuation of a prompt."""
    return "".join([character async for character in write(prompt)])


async def read_a_word(prompt: str) -> str:
    """Return the first word of a continuation, and close the stream."""
    word = ""
    async with aclosing(write(prompt)) as characters:
        async for character in characters:
            if character == " ":
                break
            word += character
    return word


async def read_at_once() -> list[str]:
    """Return the continuations of all prompts, read by one task for each."""
    return await asyncio.gather(read_a_word(IMPATIENT), *map(read, PROMPTS))


async def read_in_turn() -> list[str]:
    """Return the same, read one after the other."""
    return [await read_a_word(IMPATIENT), *[await read(prompt) for prompt in PROMPTS]]


def main() -> None:
    """Learn, write the texts at once and in turn, and compare."""
    print(f"{learn()} characters of help pages, {len(followers)} sequences of {CONTEXT} characters\n")
    at_once = asyncio.run(read_at_once())
    stats, steps_at_once = write.batch_stats, len(steps)
    steps.clear()
    in_turn = asyncio.run(read_in_turn())

    for prompt, text in zip((IMPATIENT, *PROMPTS), at_once, strict=True):
        print(f"{prompt}| {text}")
    calls = len(at_once)
    print(f"\ncalls made: {calls}, total_items: {stats.total_items}, batches: {stats.total_batches}")
    print(f"streams read to the end: {stats.answered_items}, closed early: {stats.cancelled_items}")
    print(f"steps in turn: {len(steps)}, steps at once: {steps_at_once}")
    if at_once != in_turn:
        sys.exit("texts differ from those written one after the other")
    print(f"All texts are equal to those written one after the other ({calls} of {calls}).")


if __name__ == "__main__":
    main()

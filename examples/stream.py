"""Stream texts to many readers from a model that writes one character of each at a time.

The question: how many steps does the model take for the texts of many readers, and does each reader still get its own?

A language model writes in steps: what there is of a text goes in, the next character comes out. Here it is a table of
what follows which few characters in the help texts of your own Python, so its texts are about as wise as that. The
texts of all readers who come together are written in lock step. Each reader gets its characters as they are written;
when its sentence is over, its stream ends, and one reader leaves in the middle, which disturbs nobody.

Steps are counted, and time is not compared: this model looks up one character after the other. A step of a neural
network takes about as long for dozens of texts as for one, and there each step that is saved is time that is saved.

Run it with ``python examples/stream.py``; it needs nothing but batchify.
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

# How many characters the model looks back, and how many it writes at most.
REACH = 6
LENGTH = 300
PROMPTS = ("The class ", "A function ", "When the ", "If the obj", "An except", "The yield ", "Modules ", "Note that ")
IMPATIENT = "The value "

# A few characters -> what has followed them, as often as it has.
followers: defaultdict[str, list[str]] = defaultdict(list)
# The number of texts in each step of the model.
steps: list[int] = []


def learn() -> int:
    """Read the help texts, and return how many characters they have."""
    text = " ".join(" ".join(topics.values()).split())
    # After the end comes the beginning, so that something has followed everything.
    circle = text + text[:REACH]
    for end in range(REACH, len(circle)):
        followers[circle[end - REACH : end]].append(circle[end])
    return len(text)


def step(texts: list[str], chance: list[Random]) -> list[str]:
    """Return the next character of each text: one step of the model."""
    steps.append(len(texts))
    return [each.choice(followers[text[-REACH:]]) for text, each in zip(texts, chance, strict=True)]


@microbatch(max_size=64)
async def write(prompts: list[str], *, seed: int = 0) -> AsyncIterator[list[str | Done]]:
    """Write on after each prompt, to the end of the sentence."""
    texts = list(prompts)
    chance = [Random(f"{seed} {prompt}") for prompt in prompts]  # noqa: S311  # nothing here is a secret
    for _ in range(LENGTH):
        characters = step(texts, chance)
        yield [DONE if text.endswith(". ") else character for text, character in zip(texts, characters, strict=True)]
        texts = [text + character for text, character in zip(texts, characters, strict=True)]
        # Others, who read or come, have their turn; a model would compute in a thread meanwhile.
        await asyncio.sleep(0)


async def read(prompt: str) -> str:
    """Return what is written after a prompt."""
    return "".join([character async for character in write(prompt)])


async def read_a_word(prompt: str) -> str:
    """Return the first word that is written after a prompt, and leave."""
    word = ""
    async with aclosing(write(prompt)) as characters:
        async for character in characters:
            if character == " ":
                break
            word += character
    return word


async def read_together() -> list[str]:
    """Return what is written after all prompts, each read by a task of its own."""
    return await asyncio.gather(read_a_word(IMPATIENT), *map(read, PROMPTS))


async def read_in_turn() -> list[str]:
    """Return the same, one text after the other."""
    return [await read_a_word(IMPATIENT), *[await read(prompt) for prompt in PROMPTS]]


def main() -> None:
    """Learn, write in both ways, and compare."""
    print(f"{learn()} characters of help texts, {len(followers)} beginnings of {REACH} characters\n")
    together = asyncio.run(read_together())
    stats, in_company = write.batch_stats, len(steps)
    steps.clear()
    in_turn = asyncio.run(read_in_turn())

    for prompt, text in zip((IMPATIENT, *PROMPTS), together, strict=True):
        print(f"{prompt}| {text}")
    made = len(together)
    print(f"\ncalls made: {made}, total_items: {stats.total_items}, batches: {stats.total_batches}")
    print(f"streams read to their end: {stats.answered_items}, left: {stats.cancelled_items}")
    print(f"steps in turn: {len(steps)}, steps together: {in_company}")
    if together != in_turn:
        sys.exit("texts differ from those written one after the other")
    print(f"Texts are equal to those written one after the other ({made} of {made}).")


if __name__ == "__main__":
    main()

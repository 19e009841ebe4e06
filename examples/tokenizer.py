"""Tokenize single texts from many threads and tasks, in batches, and compare the time with that of a plain loop.

It trains a tokenizer on the help pages of Python. Then it tokenizes each paragraph with a call of its own: in a plain
loop, from 64 threads, from 256 asyncio tasks, and from one caller that waits for each answer before its next call. It
compares the ids of every paragraph with those of the loop.

The last caller shows when batching loses: it waits for a window in which no other call arrives. The other callers gain
little: this tokenizer takes about as long for a batch as for its texts one by one, except that it spreads a batch over
all cores. A function that costs much less for each item of a batch gains more; ``digits.py`` is one.

Run it with ``python examples/tokenizer.py``; it needs the package ``tokenizers``. This command finds the best options:
``batchify tune examples.tokenizer:tokenize --items examples.tokenizer:paragraphs``.
"""

from __future__ import annotations

import asyncio
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pydoc_data.topics import topics
from time import perf_counter
from typing import TYPE_CHECKING

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from batchify import microbatch

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS = 64
TASKS = 256
# One caller waits for its window in each call, so fewer texts are enough.
ALONE = 200
RUNS = 3

tokenizer = Tokenizer(BPE())


# This tokenizer does not pad. With padding to the longest text of a batch, the ids would depend on other callers.
@microbatch(max_size=32, timeout=0.002)
def tokenize(texts: list[str]) -> list[list[int]]:
    """Return the ids of each text."""
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def paragraphs_of_help() -> list[str]:
    """Return the paragraphs of all help pages, in order."""
    parts = (part for page in topics.values() for part in re.split(r"\n\s*\n", page))
    return [part.strip() for part in parts if part.strip()]


def train(texts: list[str]) -> None:
    """Train the tokenizer on texts."""
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(texts, BpeTrainer(vocab_size=2000, show_progress=False))


def paragraphs() -> list[str]:
    """Train the tokenizer and return the texts to tokenize; also the items for ``batchify tune``."""
    texts = paragraphs_of_help()
    train(texts)
    return texts


def in_a_loop(texts: list[str]) -> list[list[int]]:
    """Tokenize texts one by one, without batches."""
    return [tokenizer.encode(text).ids for text in texts]


def from_one_caller(texts: list[str]) -> list[list[int]]:
    """Tokenize texts one by one; each call waits for the answer of the call before it."""
    return [tokenize(text) for text in texts]


def from_threads(texts: list[str]) -> list[list[int]]:
    """Tokenize texts one by one from many threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(tokenize, texts))


async def from_tasks(texts: list[str]) -> list[list[int]]:
    """Tokenize texts one by one from many tasks; each task takes the next text when it has its ids."""
    remaining = iter(enumerate(texts))
    ids: list[list[int]] = [[] for _ in texts]

    async def client() -> None:
        for position, text in remaining:
            ids[position] = await tokenize.acall(text)

    await asyncio.gather(*(client() for _ in range(TASKS)))
    return ids


def measure(run: Callable[[list[str]], list[list[int]]], texts: list[str], expected: list[list[int]]) -> float:
    """Return the milliseconds for each text in the fastest of several runs; exit with an error if an id is wrong."""
    seconds = []
    for _ in range(RUNS):
        tokenize.reset_stats()
        start = perf_counter()
        ids = run(texts)
        seconds.append(perf_counter() - start)
        if ids != expected:
            sys.exit("ids differ from those of the loop")
    return 1000 * min(seconds) / len(texts)


def main() -> None:
    """Train the tokenizer, tokenize in each way, and compare."""
    texts = paragraphs()
    # The tokenizer caches words. This first run fills the cache, so that every timed run finds it full.
    expected = in_a_loop(texts)
    print(f"{len(texts)} paragraphs, {sum(map(len, expected))} tokens, a vocabulary of {tokenizer.get_vocab_size()}\n")
    print(f"{'':20}{'calls':>8}{'batches':>9}{'time per text':>16}{'speed':>8}")
    alone = measure(in_a_loop, texts, expected)
    print(f"{'a plain loop':20}{len(texts):>8}{'':9}{alone:>13.3f} ms{1:>7.2f}x")
    for callers, run, count in (
        (f"{THREADS} threads", from_threads, len(texts)),
        (f"{TASKS} asyncio tasks", lambda texts: asyncio.run(from_tasks(texts)), len(texts)),
        ("one caller", from_one_caller, ALONE),
    ):
        time = measure(run, texts[:count], expected[:count])
        stats = tokenize.batch_stats
        verdict = "" if time < alone else "  slower than the loop"
        print(f"{callers:20}{count:>8}{stats.total_batches:>9}{time:>13.3f} ms{alone / time:>7.2f}x{verdict}")
        if run is from_threads:
            from_many = stats
    print(f"\nThe ids are equal to those of the loop. From {THREADS} threads:\n\n{from_many}")


if __name__ == "__main__":
    main()

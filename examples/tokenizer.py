"""Tokenize single texts from many threads and tasks, in batches, and compare the time with that of a plain loop.

This example trains a tokenizer on the help pages of Python. Then it tokenizes each paragraph with a call of its own: in
a plain loop, from 64 threads, from 256 asyncio tasks, and from one caller that waits for each answer before its next
call. It compares the ids of every paragraph with those of the loop.

This tokenizer takes about as long for a batch as for its texts one by one, so calls in batches cost more processor time
than the loop. They may end sooner because the tokenizer spreads a batch over all cores. One caller loses in any case:
it waits for a window in which no other call arrives. A function that costs much less for each item of a batch gains
much more; ``digits.py`` is one.

Run it with ``python examples/tokenizer.py``; it needs the package ``tokenizers``. This command finds the best options:
``batchify tune examples.tokenizer:tokenize --items examples.tokenizer:paragraphs``.
"""

from __future__ import annotations

import asyncio
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pydoc_data.topics import topics
from time import perf_counter, process_time
from typing import TYPE_CHECKING

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from batchify import microbatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchify import BatchStats

    Run = Callable[[list[str]], list[list[int]]]

THREADS = 64
TASKS = 256
# One caller waits for its window in each call, so fewer texts are enough.
ALONE = 200
ROUNDS = 5

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


def measure(run: Run, texts: list[str], expected: list[list[int]]) -> tuple[float, float, BatchStats]:
    """Return the time and the processor time of a run, in ms for each text, and the statistics of its batches."""
    tokenize.reset_stats()
    start, start_of_processor = perf_counter(), process_time()
    ids = run(texts)
    seconds, seconds_of_processor = perf_counter() - start, process_time() - start_of_processor
    if ids != expected:
        sys.exit("ids differ from those of the loop")
    return 1000 * seconds / len(texts), 1000 * seconds_of_processor / len(texts), tokenize.batch_stats


def main() -> None:
    """Train the tokenizer, tokenize in each way, and compare the fastest runs."""
    texts = paragraphs()
    # The tokenizer caches words. This first run fills the cache, so that every timed run finds it full.
    expected = in_a_loop(texts)
    print(f"{len(texts)} paragraphs, {sum(map(len, expected))} tokens, a vocabulary of {tokenizer.get_vocab_size()}\n")
    ways: dict[str, tuple[Run, int]] = {
        "a plain loop": (in_a_loop, len(texts)),
        f"{THREADS} threads": (from_threads, len(texts)),
        f"{TASKS} asyncio tasks": (lambda texts: asyncio.run(from_tasks(texts)), len(texts)),
        "one caller": (from_one_caller, ALONE),
    }
    # One run of each way after the other: if the speed of the machine changes, it changes for all of them.
    rounds = [[measure(run, texts[:n], expected[:n]) for run, n in ways.values()] for _ in range(ROUNDS)]
    fastest = [min(runs, key=lambda measured: measured[0]) for runs in zip(*rounds, strict=True)]
    alone = fastest[0][0]
    print(f"{'':20}{'calls':>6}{'batches':>9}{'time per text':>15}{'processor':>13}{'speed':>8}")
    for (callers, (_, calls)), (time, processor, stats) in zip(ways.items(), fastest, strict=True):
        batches = stats.total_batches or "none"
        verdict = "  slower than the loop" if time > alone else ""
        times = f"{time:>12.3f} ms{processor:>10.3f} ms{alone / time:>7.2f}x"
        print(f"{callers:20}{calls:>6}{batches:>9}{times}{verdict}")
    print(f"\nThe ids are equal to those of the loop. From {THREADS} threads:\n\n{fastest[1][-1]}")


if __name__ == "__main__":
    main()

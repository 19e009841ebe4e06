"""Tokenize single texts from many threads and tasks, with few calls of the tokenizer.

This example shows how many calls batching saves, and that it changes no result.

It trains a tokenizer on the help pages of Python. Then it tokenizes each paragraph on its own, first from 64 threads
and then from 256 asyncio tasks, all through one decorated function. It compares the ids of every paragraph with those
of direct encoding. It counts calls and does not compare times: this tokenizer is so fast that passing a text from
thread to thread costs as much as encoding it.

Run it with ``python examples/tokenizer.py``; it needs the package ``tokenizers``. This command finds the best options:
``batchify tune examples.tokenizer:tokenize --items examples.tokenizer:paragraphs``.
"""

from __future__ import annotations

import asyncio
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pydoc_data.topics import topics

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from batchify import microbatch

THREADS = 64
TASKS = 256

tokenizer = Tokenizer(BPE())


# This tokenizer does not pad. With padding to the longest text of a batch, the ids would depend on other callers.
@microbatch(max_size=64)
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


def report(callers: str, ids: list[list[int]], direct: list[list[int]]) -> None:
    """Print and reset the statistics; exit with an error if a result is wrong."""
    stats = tokenize.batch_stats
    tokenize.reset_stats()
    calls = len(direct)
    print(f"\nFrom {callers}\n\n{stats}\n")
    print(f"calls made: {calls}, total_items: {stats.total_items}")
    print(f"calls of the tokenizer: {stats.total_batches}, saved: {calls - stats.total_batches}")
    if ids != direct:
        sys.exit("ids differ from direct encoding")
    if stats.total_items != calls:
        sys.exit("total_items is not the number of calls made")


def main() -> None:
    """Train the tokenizer, tokenize from threads and from tasks, and compare."""
    texts = paragraphs()
    direct = [tokenizer.encode(text).ids for text in texts]
    print(f"{len(texts)} paragraphs, {sum(map(len, direct))} tokens, a vocabulary of {tokenizer.get_vocab_size()}")
    report(f"{THREADS} threads", from_threads(texts), direct)
    report(f"{TASKS} asyncio tasks", asyncio.run(from_tasks(texts)), direct)
    print(f"\nAll ids are equal to direct encoding ({len(texts)} of {len(texts)} paragraphs, from threads and tasks).")


if __name__ == "__main__":
    main()

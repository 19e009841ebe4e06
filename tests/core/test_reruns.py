"""The runs of a batch: which part runs next, and which parts an error ends."""

from __future__ import annotations

import asyncio
from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchify._core.batch import Batch
from batchify._core.limits import Limits
from batchify._core.reruns import Reruns


def new(items):
    """Return the runs of a batch of these items, whose waiters are the same."""
    items = [*items]
    return Reruns(Batch(items, items.copy(), [0.0] * len(items), "full", 99, 0.0), Limits().padding)


def played(runs, bad, error=ValueError, *, abandoned_after=999):
    """Run all parts, of which those with a bad item fail. Return the parts that ran, and those that errors ended."""
    ran, ended = [], []
    for part in runs:
        ran.append("".join(part.items))
        if set(bad) & set(part.items):
            parts = runs.ended(error("bad"), is_abandoned=len(ran) > abandoned_after)
            ended += ["".join(some.items) for some in parts]
    return ran, ended


def test_a_batch_without_an_error_runs_once():
    """A batch that succeeds runs as a whole."""
    assert (["abcd"], []) == played(new("abcd"), "")


def test_each_part_is_padded_by_its_own_size():
    """With ``sizes``, each part is padded for the number of its items."""
    runs = Reruns(Batch([*"abc"], [*"ABC"], [0.0] * 3, "full", 99, 0.0), Limits(max_size=8, sizes=(2, 8)).padding)
    given = []
    for part in runs:
        given.append("".join(part.given))
        if len(part.items) > 1:
            runs.ended(ValueError("bad"), is_abandoned=False)
    assert ["abcccccc", "aa", "bc", "bb", "cc"] == given


def test_a_failed_part_runs_again_in_halves():
    """The halves of a failed part run next, in order, until the bad item runs alone."""
    assert (["abcd", "ab", "a", "b", "cd"], ["b"]) == played(new("abcd"), "b")


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError])
def test_an_error_that_is_no_exception_ends_all_parts(error):
    """An interrupt ends the part that runs and all parts behind it, in order."""
    assert (["abcd"], ["abcd"]) == played(new("abcd"), "b", error)
    runs = new("abcdefgh")
    for part in runs:
        ended = runs.ended(ValueError() if part.size > 2 else error(), is_abandoned=False)
    assert ["ab", "cd", "efgh"] == ["".join(part.items) for part in ended]


def test_an_error_of_an_abandoned_batch_ends_all_parts():
    """No half runs again for callers that have all left."""
    assert (["abcd", "ab"], ["ab", "cd"]) == played(new("abcd"), "b", abandoned_after=1)


@given(size=st.integers(1, 64), data=st.data())
def test_the_number_of_runs_is_bounded(size, data):
    """``k`` bad items of ``n`` add at most ``2 k ceil(log2 n)`` runs and ``2 n - 2``, and only they get the error."""
    items = [chr(ord("A") + number) for number in range(size)]
    bad = data.draw(st.sets(st.sampled_from(items)))
    ran, ended = played(new(items), bad)
    assert sorted(bad) == ended
    assert len(ran) - 1 <= min(2 * len(bad) * ceil(log2(size)), 2 * size - 2)

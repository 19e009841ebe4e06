"""The list of live batchers."""

from __future__ import annotations

import gc

import pytest

from batchify._batcher import registry
from batchify._batcher.registry import aclose_all, batchers, close_all, counting, keep, register

pytestmark = pytest.mark.usefixtures("no_others")


class Batcher:
    """Notes that it was closed, and how."""

    def __init__(self, name, log=None):
        self.name = name
        self.log = log
        register(self)

    def __repr__(self):
        return self.name

    def close(self):
        self.log.append(f"{self.name} closed")

    def _reset_after_fork(self):
        self.log.append(f"{self.name} renewed")

    async def aclose(self):
        self.log.append(f"{self.name} closed on the loop")


def test_nothing_is_there_at_first():
    """Before any batcher is made the list is empty."""
    assert [] == batchers()


def test_batchers_are_listed_oldest_first():
    """Batchers are listed in the order in which they were made."""
    made = [Batcher("first"), Batcher("second"), Batcher("third")]
    assert made == batchers()


def test_announcing_twice_lists_once():
    """A batcher that announces itself again stays where it was."""
    made = [Batcher("first"), Batcher("second")]
    register(made[0])
    assert made == batchers()


def test_the_list_belongs_to_its_reader():
    """What somebody does to the list changes nobody's batchers."""
    made = [Batcher("first")]
    batchers().clear()
    assert made == batchers()


def test_batchers_are_held_weakly():
    """A batcher that nobody holds is no longer listed, and its neighbours are."""
    made = [Batcher("first"), Batcher("second")]
    del made[0]
    gc.collect()
    assert made == batchers()


def test_nothing_is_left_of_a_batcher():
    """What was known of a batcher goes with it, so that thousands of them can come and go."""
    Batcher("first")
    gc.collect()
    assert {} == registry._live


def test_a_batcher_whose_end_is_not_yet_known_is_not_listed(monkeypatch):
    """Between the end of a batcher and the note of it, the list leaves it out."""
    monkeypatch.setattr("batchify._batcher.registry._live", {lambda: None: None})
    assert [] == batchers()


class Keeper:
    """Counts for others."""


def test_batchers_count_for_themselves():
    """What counts are the batchers, oldest first, unless somebody else counts for them."""
    made = [Batcher("first"), Batcher("second")]
    assert made == counting()


def test_a_keeper_counts_in_the_place_of_batchers():
    """A keeper counts once, however many it keeps, and those it keeps are listed and do not count."""
    keeper = Keeper()
    made = [Batcher("first"), Batcher("second"), Batcher("third")]
    keep(keeper, made[0])
    keep(keeper, made[2])
    assert ([made[1], keeper], made) == (counting(), batchers())


def test_keepers_are_held_weakly():
    """A keeper that nobody holds no longer counts, and nothing is left of it."""
    keep(Keeper(), Batcher("first"))
    gc.collect()
    assert ([], {}) == (counting(), registry._keepers)


def test_a_keeper_whose_end_is_not_yet_known_does_not_count(monkeypatch):
    """Between the end of a keeper and the note of it, it is left out."""
    monkeypatch.setattr("batchify._batcher.registry._keepers", {lambda: None: None})
    assert [] == counting()


def test_close_all_closes_all_oldest_first():
    """``close_all()`` closes every live batcher, in the order in which they were made."""
    log = []
    made = [Batcher("first", log), Batcher("second", log)]
    close_all()
    assert [f"{batcher} closed" for batcher in made] == log


async def test_aclose_all_closes_all_oldest_first():
    """``aclose_all()`` awaits the end of every live batcher, in the order in which they were made."""
    log = []
    made = [Batcher("first", log), Batcher("second", log)]
    await aclose_all()
    assert [f"{batcher} closed on the loop" for batcher in made] == log


def test_a_fork_renews_all():
    """What is called in the child of a fork lets every live batcher begin anew."""
    log = []
    made = [Batcher("first", log), Batcher("second", log)]
    registry._reset_after_fork()
    assert [f"{batcher} renewed" for batcher in made] == log

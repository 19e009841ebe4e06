"""Soak one engine, in a process of its own: game after game, until there were as many calls as wanted.

Prints a report in JSON, and ends with status 1 if anything was wrong, also if it hangs.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
from collections import Counter

import leftovers
import tasks
import threads
from ledger import Game
from subjects import IN_THREADS, ON_LOOPS, Subject
from tend import tend

# No game takes so many seconds unless it hangs.
HANG = 60.0
# What memory may grow by in the second half: blocks of Python's allocator, and KiB.
BLOCKS = 3000
RESIDENT = 16 * 1024


def play(engine, game):
    """Let everybody call until the game is over; return whether all calls ended."""
    kinds = ON_LOOPS if engine == "asyncio" else IN_THREADS
    random = game.random("subjects")
    game.subjects = [
        Subject(kind, random, game.complain, game.executor) for kind in [*kinds, *random.choices(list(kinds), k=2)]
    ]
    ended = threading.Event()
    tending = threading.Thread(target=tend, args=(game, ended), name="tend", daemon=True)
    tending.start()
    callers = [threading.Thread(target=tasks.call_from_loops, args=(game, f"loop {n}"), daemon=True) for n in range(2)]
    if engine == "threads":
        callers += [threading.Thread(target=threads.Caller(game, f"thread {n}").run, daemon=True) for n in range(6)]
    for caller in callers:
        caller.start()
    if engine == "threads":
        threads.Caller(game, "main").run_interrupted()
    deadline = time.monotonic() + HANG / 2
    for caller in callers:
        caller.join(max(0, deadline - time.monotonic()))
    ended.set()
    tending.join(max(0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in [tending, *callers])


def finish(game):
    """Close and count everything, and return what came of all calls; nothing of the game is left."""
    for subject in game.subjects:
        if subject.lasts:
            subject.close()
    game.audit()
    counts = Counter(calls=game.made)
    for (_, end), count in game.ends().items():
        counts[end] += count
    return counts


class Soak:
    """What was counted so far, and what was wrong."""

    def __init__(self, engine, calls, seed):
        self.engine = engine
        self.calls = calls
        self.seed = seed
        self.began = time.monotonic()
        self.counts = Counter()
        self.complaints = []
        self.left = Counter()
        self.objects = None
        self.noise = leftovers.Noise()
        # After each game.
        self.memory = []

    def run(self):
        """Play, and say whether all went well."""
        size = max(400, min(10_000, self.calls // 6))
        known = None
        while self.counts["calls"] < self.calls and not self.wrong:
            faulthandler.dump_traceback_later(HANG, exit=True)
            number = len(self.memory)
            # A game is loud if its batch functions may end loops.
            game = Game(f"{self.seed} {number}", size, loud=number % 3 == 1)
            known = known or threading.enumerate()
            if not play(self.engine, game):
                self._hang(game)
            self.counts += finish(game)
            self.complaints += game.complaints
            del game
            self._clean(known)
        faulthandler.cancel_dump_traceback_later()
        self._grow()
        return not self.wrong

    @property
    def wrong(self):
        return self.complaints or self.left or self.noise.heard

    def _clean(self, known):
        # With objects that only the garbage collector finds their threads end, and with threads what they hold.
        leftovers.objects()
        threads = leftovers.threads(known)
        if threads:
            faulthandler.dump_traceback(all_threads=True)
        objects = leftovers.objects()
        # What the first game leaves is there once, and does not grow.
        if self.objects is None:
            self.objects = objects
        objects = objects - self.objects
        self.left += Counter(threads=len(threads), objects=sum(objects.values()))
        if self.left:
            self.complaints.append(("left over", f"{[thread.name for thread in threads]}, {dict(objects)}"))
        self.memory.append(leftovers.memory())

    def _grow(self):
        half, end = self.memory[len(self.memory) // 2], self.memory[-1]
        self.grown = [after - before for before, after in zip(half, end, strict=True)]
        if self.grown[0] > BLOCKS or self.grown[1] > RESIDENT:
            self.complaints.append(("memory", f"grew by {self.grown[0]} blocks, {self.grown[1]} KiB"))

    def _hang(self, game):
        faulthandler.dump_traceback(all_threads=True)
        game.complain("hang", "calls have not ended")
        lost = game.made - sum(game.ends().values())
        self.counts += Counter(calls=game.made, lost=lost)
        self.complaints += game.complaints
        self.grown = [0, 0]
        self.tell()
        os._exit(1)

    def tell(self):
        """Print the report."""
        kinds = Counter(kind for kind, _ in self.complaints)
        report = {
            end: self.counts[end]
            for end in ("calls", "answered", "failed", "cancelled", "expired", "unread", "refused")
        }
        report |= {kind: kinds[kind] for kind in ("lost", "doubled", "crossed")}
        report["other faults"] = sum(kinds.values()) - sum(report[kind] for kind in ("lost", "doubled", "crossed"))
        report["lost"] = self.counts["lost"] or report["lost"]
        report["heard"] = len(self.noise.heard)
        report |= {f"left {kind}": self.left[kind] for kind in ("threads", "objects")}
        report["left tasks"] = kinds["tasks"]
        report |= {"grown blocks": self.grown[0], "grown KiB": self.grown[1]}
        report["seconds"] = round(time.monotonic() - self.began, 1)
        for line in [*(f"{kind}: {text}" for kind, text in self.complaints), *self.noise.heard][:20]:
            print(line, file=sys.stderr)
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    soak = Soak(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    well = soak.run()
    soak.tell()
    sys.exit(not well)

"""Soak-test one engine in this process, trial after trial, until the requested number of calls is made.

The script prints a report in JSON. Its exit status is 1 if a check failed or an engine hung.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
from collections import Counter

import leftovers
import tasks
import threads
from faults import disturb
from ledger import Trial
from subjects import IN_THREADS, ON_LOOPS, Subject
from tend import maintain

from batchify._clock import monotonic

# A trial that takes this number of seconds hangs.
HANG = 180.0
# The maximum growth of memory in the second half, in blocks of Python's allocator and in KiB.
BLOCKS = 3000
RESIDENT = 16 * 1024
# The lines of the report for what happens to the process, and for its faults.
EVENTS = ("forks", "frozen clocks")
FAULTS = ("lost", "doubled", "wrong answer", "dead")


def run_trial(engine, trial):
    """Run all callers until the trial has ended; return whether all calls ended."""
    kinds = ON_LOOPS if engine == "asyncio" else IN_THREADS
    random = trial.random("subjects")
    trial.subjects = [
        Subject(kind, random, trial.report_fault, trial.executor)
        for kind in [*kinds, *random.choices(list(kinds), k=2)]
    ]
    ended = threading.Event()
    others = [threading.Thread(target=each, args=(trial, ended), daemon=True) for each in (maintain, disturb)]
    callers = [threading.Thread(target=tasks.call_from_loops, args=(trial, f"loop {n}"), daemon=True) for n in range(2)]
    if engine == "threads":
        callers += [threading.Thread(target=threads.Caller(trial, f"thread {n}").run, daemon=True) for n in range(6)]
    for thread in [*others, *callers]:
        thread.start()
    if engine == "threads":
        threads.Caller(trial, "main").run_interrupted()
    deadline = monotonic() + HANG / 2
    for caller in callers:
        caller.join(max(0, deadline - monotonic()))
    ended.set()
    for other in others:
        other.join(max(0, deadline - monotonic()))
    return not any(thread.is_alive() for thread in [*others, *callers])


def finish(trial):
    """Close all subjects, audit the trial, and return the number of calls by end."""
    for subject in trial.subjects:
        if subject.lasts:
            subject.close()
    trial.audit()
    counts = Counter(calls=trial.made)
    counts += trial.faked
    for (_, end), count in trial.ends().items():
        counts[end] += count
    return counts


class Soak:
    """The counts and faults of all trials so far."""

    def __init__(self, engine, calls, seed):
        self.engine = engine
        self.calls = calls
        self.seed = seed
        self.began = monotonic()
        self.counts = Counter()
        self.faults = []
        self.left = Counter()
        self.objects = None
        self.log = leftovers.LogRecorder()
        # The memory after each trial.
        self.memory = []

    def run(self):
        """Run all trials, and return whether all checks passed."""
        size = max(400, min(10_000, self.calls // 6))
        known = None
        while self.counts["calls"] < self.calls and not self.has_faults:
            faulthandler.dump_traceback_later(HANG, exit=True)
            number = len(self.memory)
            # In every third trial, batch functions may end loops.
            trial = Trial(f"{self.seed} {number}", size, ends_loops=number % 3 == 1)
            known = known or threading.enumerate()
            if not run_trial(self.engine, trial):
                self._report_hang(trial)
            self.counts += finish(trial)
            self.faults += trial.faults
            del trial
            self._check_leftovers(known)
        faulthandler.cancel_dump_traceback_later()
        self._check_growth()
        return not self.has_faults

    @property
    def has_faults(self):
        return self.faults or self.left or self.log.records

    def _check_leftovers(self, known):
        # Threads end when the garbage collector frees their batchers, and then release their own objects.
        leftovers.objects()
        threads = leftovers.threads(known)
        if threads:
            faulthandler.dump_traceback(all_threads=True)
        objects = leftovers.objects()
        # Objects that remain after the first trial are created once and do not accumulate.
        if self.objects is None:
            self.objects = objects
        objects = objects - self.objects
        self.left += Counter(threads=len(threads), objects=sum(objects.values()))
        if self.left:
            self.faults.append(("left over", f"{[thread.name for thread in threads]}, {dict(objects)}"))
        self.memory.append(leftovers.memory())

    def _check_growth(self):
        half, end = self.memory[len(self.memory) // 2], self.memory[-1]
        self.grown = [after - before for before, after in zip(half, end, strict=True)]
        if self.grown[0] > BLOCKS or self.grown[1] > RESIDENT:
            self.faults.append(("memory", f"grew by {self.grown[0]} blocks, {self.grown[1]} KiB"))

    def _report_hang(self, trial):
        faulthandler.dump_traceback(all_threads=True)
        trial.report_fault("dead", "calls have not ended")
        lost = trial.made - sum(trial.ends().values())
        self.counts += Counter(calls=trial.made, lost=lost)
        self.faults += trial.faults
        self.grown = [0, 0]
        self.print_report()
        os._exit(1)

    def print_report(self):
        """Print the report."""
        kinds = Counter(kind for kind, _ in self.faults)
        report = {
            end: self.counts[end]
            for end in ("calls", "answered", "failed", "cancelled", "expired", "unread", "refused", *EVENTS)
        }
        report |= {kind: kinds[kind] for kind in FAULTS}
        report["other faults"] = sum(kinds.values()) - sum(report[kind] for kind in FAULTS)
        report["lost"] = self.counts["lost"] or report["lost"]
        report["logged"] = len(self.log.records)
        report |= {f"left {kind}": self.left[kind] for kind in ("threads", "objects")}
        report["left tasks"] = kinds["tasks"]
        report |= {"grown blocks": self.grown[0], "grown KiB": self.grown[1]}
        report["seconds"] = round(monotonic() - self.began, 1)
        for line in [*(f"{kind}: {text}" for kind, text in self.faults), *self.log.records][:20]:
            print(line, file=sys.stderr)
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    soak = Soak(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    is_ok = soak.run()
    soak.print_report()
    sys.exit(not is_ok)

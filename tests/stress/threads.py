"""Callers in threads."""

from __future__ import annotations

import concurrent.futures
import signal
import time
from functools import partial

import streams
from ledger import Interrupted

from batchify import BatcherClosedError


class Caller:
    """Makes calls in random ways, and records how they end."""

    def __init__(self, trial, name):
        self._trial = trial
        self._random = trial.random(name)
        self._ledger = trial.ledger()
        # Whether the current call expects a signal.
        self._waits = False

    def run(self):
        while not self._trial.has_ended:
            subject = self._trial.subject(self._random)
            ways = self.STREAMED if subject.streams else self.WAYS
            self._random.choice(ways)(self, subject)

    def run_interrupted(self):
        """Make calls that a signal interrupts. Only the main thread can be interrupted."""
        if not hasattr(signal, "setitimer"):
            return
        before = signal.signal(signal.SIGALRM, self._interrupt)
        while not self._trial.has_ended:
            lasting = [subject for subject in self._trial.subjects if subject.lasts]
            self._call_until_interrupted(self._random.choice(lasting))
            time.sleep(0.001)
        signal.signal(signal.SIGALRM, before)

    def _interrupt(self, number, frame):
        # Anywhere inside the call, but not in the records of its end.
        if self._waits and frame.f_code is not Caller._call_until_interrupted.__code__:
            raise Interrupted

    def _call(self, subject):
        item = self._trial.item(self._random)
        self._read(subject, item, lambda: subject.call(item))

    def _call_until_interrupted(self, subject):
        item = self._trial.item(self._random)
        self._waits = True
        signal.setitimer(signal.ITIMER_REAL, self._random.uniform(0.00001, 0.001))
        try:
            answer = subject.call(item)
            self._waits = False
        except BaseException as error:
            self._waits = False
            # An exception in Thread.start() makes CPython release a lock twice.
            if isinstance(error, Interrupted) or isinstance(error.__context__, Interrupted):
                self._ledger.note(subject, "interrupted")
            else:
                self._ledger.failed(subject, item, error)
        else:
            self._ledger.answered(subject, item, answer)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _submit(self, subject):
        taken = []
        for item in self._trial.items(self._random, 20):
            item.caller = self
            try:
                future = subject.submit(item)
            except BatcherClosedError as error:
                self._ledger.failed(subject, item, error)
            else:
                taken.append((item, future))
                if self._random.random() < 0.1:
                    future.cancel()
        for item, future in taken:
            self._read_or_cancel(subject, item, future)

    def _read_or_cancel(self, subject, item, future):
        timeout = self._random.choice((None, None, 0, 0.0005))
        if timeout is not None:
            concurrent.futures.wait([future], timeout)
            future.cancel()
        if future.cancelled():
            self._ledger.withdraw(subject, item)
            self._ledger.note(subject, "cancelled")
        else:
            self._read(subject, item, future.result)

    def _submit_streams(self, subject):
        taken = []
        for item in self._trial.items(self._random, 20):
            item.caller = self
            try:
                taken.append((item, subject.submit(item)))
            except BatcherClosedError as error:
                self._ledger.failed(subject, item, error)
        self._random.shuffle(taken)
        for item, stream in taken:
            if self._random.random() < 0.1:
                stream.close()
                self._ledger.note(subject, "cancelled")
            else:
                self._read(subject, item, partial(streams.read, item, stream))

    def _map(self, subject):
        items = self._trial.items(self._random, 20)
        try:
            answers = subject.map(items)
        except BaseException as error:
            self._ledger.failed_together(subject, items, error)
        else:
            for item, answer in zip(items, answers, strict=True):
                self._ledger.answered(subject, item, answer)

    def _read(self, subject, item, result):
        try:
            answer = result()
        except BaseException as error:
            self._ledger.failed(subject, item, error)
        else:
            self._ledger.answered(subject, item, answer)

    WAYS = (_call, _call, _call, _submit, _map)
    STREAMED = (_call, _call, _call, _submit_streams, _map)

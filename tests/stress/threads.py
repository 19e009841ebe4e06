"""Callers in threads."""

from __future__ import annotations

import concurrent.futures
import signal
import time

from ledger import Interrupted

from batchify import BatcherClosedError


class Caller:
    """Makes calls, whichever way, and notes how they end."""

    def __init__(self, game, who):
        self._game = game
        self._random = game.random(who)
        self._ledger = game.ledger()

    def run(self):
        while not self._game.over:
            self._random.choice(self.WAYS)(self, self._random.choice(self._game.subjects))

    def run_interrupted(self):
        """Let a signal interrupt each call at any moment. Only the main thread can be interrupted."""
        import os

        if os.environ.get("NOSIG") or not hasattr(signal, "setitimer"):
            return
        before = signal.signal(signal.SIGALRM, _interrupt)
        while not self._game.over:
            lasting = [subject for subject in self._game.subjects if subject.lasts]
            self._ask_until_interrupted(self._random.choice(lasting))
            time.sleep(0.001)
        signal.signal(signal.SIGALRM, before)

    def _ask(self, subject):
        item = self._game.item(self._random)
        self._read(subject, item, lambda: subject.call(item))

    def _ask_until_interrupted(self, subject):
        item = self._game.item(self._random)
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, self._random.uniform(0.00001, 0.001))
                answer, error = subject.call(item), None
            except Interrupted:
                raise
            except BaseException as e:
                answer, error = None, e
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:
            self._ledger.note(subject, "interrupted")
            return
        self._read(subject, item, lambda: _give(answer, error))

    def _submit(self, subject):
        taken = []
        for item in self._game.items(self._random, 20):
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
            self._ledger.taken_back.append(item)
            self._ledger.note(subject, "cancelled")
        else:
            self._read(subject, item, future.result)

    def _map(self, subject):
        items = self._game.items(self._random, 20)
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

    WAYS = (_ask, _ask, _ask, _submit, _map)


def _give(answer, error):
    if error is not None:
        raise error
    return answer


def _interrupt(number, frame):
    raise Interrupted

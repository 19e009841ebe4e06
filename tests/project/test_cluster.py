"""Batches on a cluster: answers are those of one process, whatever becomes of the processes that work for it."""

from __future__ import annotations

import os
from textwrap import dedent

import pytest

from tests.kit import processes
from tests.kit.examples import EXAMPLES, needs, numbers, printed

pytestmark = [needs("distributed"), pytest.mark.skipif(os.name != "posix", reason="processes are killed by signal")]

# What workers import. A batch at the gate says in which process it runs, and waits until it is let go.
THEIRS = """
    import os, socket
    from threading import Lock
    from batchify import current_batch, microbatch

    # It does not travel, and neither does a function that is sent together with what it uses.
    lock = Lock()

    @microbatch(max_size=4, timeout=3600, concurrency=2)
    def score(numbers, *, priority=1):
        with lock:
            return [(priority * number, current_batch().size) for number in numbers]

    @microbatch(max_size=2, timeout=3600, concurrency=2)
    def at_gate(items, *, gate):
        with socket.create_connection(gate) as door:
            door.sendall(str(os.getpid()).encode())
            door.recv(1)
        return [(item, os.getpid()) for item in items]
"""
SCRIPT = """
    import logging, os, signal, socket, sys, threading
    from concurrent.futures import BrokenExecutor
    from distributed import Client, LocalCluster
    import theirs
    from batchify import BatchAbortedError, microbatch
    from cluster import Cluster

    def knocking(count):
        "Return the connections of this many batches at the gate, by the process that each runs in."
        doors = [gate.accept()[0] for _ in range(count)]
        return {int(door.recv(20)): door for door in doors}

    def ask(count):
        return [theirs.at_gate.submit(item, gate=gate.getsockname()) for item in range(count)]

    @microbatch(max_size=2, timeout=3600)
    def of_main(items):
        return [-item for item in items]

    if __name__ == "__main__":
        gate = socket.create_server(("127.0.0.1", 0))
        gate.settimeout(60)
        cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
        )
        client = Client(cluster)
        for fn in (theirs.score, theirs.at_gate, of_main):
            fn.configure(executor=Cluster(client))

        assert [(number, 4) for number in range(8)] == theirs.score.map(range(8))
        # Dask has an option of this name.
        assert [(7 * number, 4) for number in range(8)] == theirs.score.map(range(8), priority=7)
        assert [-1, -2] == of_main.map([1, 2])
        print("answered")

        calls = ask(4)
        doors = knocking(2)
        assert len(doors) == 2 and os.getpid() not in doors
        for door in doors.values():
            door.close()
        assert [0, 1, 2, 3] == [call.result(60)[0] for call in calls]
        assert set(doors) == {call.result()[1] for call in calls}
        print("at once")

        calls = ask(2)
        [victim] = knocking(1)
        os.kill(victim, signal.SIGKILL)
        [(other, door)] = knocking(1).items()
        door.close()
        assert victim != other
        assert [(0, other), (1, other)] == [call.result(60) for call in calls]
        print("again")

        # A module that is in this process, and nowhere else.
        theirs.at_gate.__wrapped__.__module__ = "here"
        sys.modules["here"] = theirs
        print(ask(2)[1].exception(60))
        # Its name leads to it again.
        theirs.at_gate.__wrapped__.__module__ = "theirs"
        calls = ask(12)
        doors = knocking(2)
        closing = threading.Thread(target=cluster.close)
        closing.start()
        told = [call.exception(60) for call in calls]
        expected = "the Cluster was shut down before the batch was done; close the batcher before its executor"
        assert {expected} == {str(error) for error in told[:4]}
        assert {BatchAbortedError} == {type(error) for error in told[:4]}
        assert {BrokenExecutor} == {type(error) for error in told[4:]}
        print(len(told), "told")
        for door in doors.values():
            door.close()
        closing.join()
        client.close()
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Return what a program prints that has a cluster of two processes, and ends it."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "theirs.py").write_text(dedent(THEIRS))
    (folder / "main.py").write_text(dedent(SCRIPT))
    done = processes.run("main.py", cwd=folder, path=[EXAMPLES], traced=False)
    assert 0 == done.returncode, done.stderr
    return done.stdout.splitlines()


def test_answers_are_those_of_one_process(seen):
    """Functions of a module and of the program itself run in workers, and keep their options to themselves."""
    assert "answered" in seen


def test_batches_run_at_once(seen):
    """With two slots, two batches are in two processes at the same time."""
    assert "at once" in seen


def test_a_killed_worker_loses_nothing(seen):
    """The batch that a killed process was running is run in another, and its callers get their answers."""
    assert "again" in seen


def test_what_workers_lack_is_named(seen):
    """A function that workers cannot import is named to its callers."""
    expected = "the process that runs the batch finds no decorated function at_gate in here; define it in a module that"
    assert any(line.startswith(expected) for line in seen)


def test_a_cluster_closed_under_load_answers_everybody(seen):
    """What runs is told that it was given up, what waits that there is no cluster any more; nobody waits in vain."""
    assert "12 told" == seen[-1]


@pytest.mark.parametrize(("where", "fails"), [((), False), (("processes",), True)], ids=["dask", "processes"])
def test_the_example(where, fails):
    """Answers from other processes are those of this one, before and after one of them is killed."""
    output = printed("cluster.py", *where)
    [[modules, workers]] = numbers("# modules, # workers", output)
    assert 2 == workers
    assert [[modules]] == numbers("items +# +pending +0", output)
    [[calls, failed]] = numbers("A process was killed under # calls, # of which failed and were made again.", output)
    assert (modules, fails) == (calls, failed > 0)
    assert [[modules, modules]] == numbers(
        r"Answers are equal to those of this process for every module \(# of #\).", output
    )

"""Batches on a cluster: results are those of one process, also when workers die."""

from __future__ import annotations

import os
from textwrap import dedent

import pytest

from tests.kit import processes
from tests.kit.examples import EXAMPLES, needs, numbers, printed

pytestmark = [needs("distributed"), pytest.mark.skipif(os.name != "posix", reason="processes are killed by signal")]

# The module that workers import. A batch of `at_gate` sends the id of its process, and waits until the gate opens.
WORKER_MODULE = """
    import os, socket
    from threading import Lock
    from batchify import current_batch, microbatch

    # A lock cannot be pickled, and neither can a function that is sent by value together with it.
    lock = Lock()

    @microbatch(max_size=4, timeout=3600, concurrency=2)
    def score(numbers, *, priority=1):
        with lock:
            return [(priority * number, current_batch().size) for number in numbers]

    @microbatch(max_size=2, timeout=3600, concurrency=2)
    def at_gate(items, *, gate):
        with socket.create_connection(gate) as connection:
            connection.sendall(str(os.getpid()).encode())
            connection.recv(1)
        return [(item, os.getpid()) for item in items]
"""
SCRIPT = """
    import logging, os, signal, socket, sys, threading
    from concurrent.futures import BrokenExecutor
    from distributed import Client, LocalCluster
    import worker_module
    from batchify import BatchAbortedError, microbatch
    from cluster import DaskExecutor

    def accept(count):
        "Return the connections of this many batches at the gate, by the id of the process that each runs in."
        connections = [gate.accept()[0] for _ in range(count)]
        return {int(connection.recv(20)): connection for connection in connections}

    def submit(count):
        return [worker_module.at_gate.submit(item, gate=gate.getsockname()) for item in range(count)]

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
        for fn in (worker_module.score, worker_module.at_gate, of_main):
            fn.configure(executor=DaskExecutor(client))

        assert [(number, 4) for number in range(8)] == worker_module.score.map(range(8))
        # Dask has an option of the same name.
        assert [(7 * number, 4) for number in range(8)] == worker_module.score.map(range(8), priority=7)
        assert [-1, -2] == of_main.map([1, 2])
        print("answered")

        calls = submit(4)
        connections = accept(2)
        assert len(connections) == 2 and os.getpid() not in connections
        for connection in connections.values():
            connection.close()
        assert [0, 1, 2, 3] == [call.result(60)[0] for call in calls]
        assert set(connections) == {call.result()[1] for call in calls}
        print("at once")

        calls = submit(2)
        # A closed connection opens the gate, so this one stays open: its process is killed inside the batch.
        [(killed, held)] = accept(1).items()
        os.kill(killed, signal.SIGKILL)
        [(other, connection)] = accept(1).items()
        held.close()
        connection.close()
        assert killed != other
        assert [(0, other), (1, other)] == [call.result(60) for call in calls]
        print("again")

        # A module that exists in this process only.
        worker_module.at_gate.__wrapped__.__module__ = "here"
        sys.modules["here"] = worker_module
        print(submit(2)[1].exception(60))
        # The importable module again.
        worker_module.at_gate.__wrapped__.__module__ = "worker_module"
        calls = submit(12)
        connections = accept(2)
        closing = threading.Thread(target=cluster.close)
        closing.start()
        errors = [call.exception(60) for call in calls]
        expected = "the DaskExecutor was shut down before the batch was done; close the batcher before its executor"
        assert {expected} == {str(error) for error in errors[:4]}
        assert {BatchAbortedError} == {type(error) for error in errors[:4]}
        assert {BrokenExecutor} == {type(error) for error in errors[4:]}
        print(len(errors), "errors")
        for connection in connections.values():
            connection.close()
        closing.join()
        client.close()
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Return the output of a program that starts a cluster of two processes and ends it."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "worker_module.py").write_text(dedent(WORKER_MODULE))
    (folder / "main.py").write_text(dedent(SCRIPT))
    done = processes.run("main.py", cwd=folder, path=[EXAMPLES], traced=False)
    assert 0 == done.returncode, done.stderr
    return done.stdout.splitlines()


def test_results_are_those_of_one_process(output):
    """Functions of a module and of the program itself run in workers, with options that Dask does not see."""
    assert "answered" in output


def test_batches_run_at_once(output):
    """With two slots, two batches run in two processes at the same time."""
    assert "at once" in output


def test_a_killed_worker_loses_nothing(output):
    """The batch of a killed process runs again in another process, and its callers get their results."""
    assert "again" in output


def test_a_function_that_workers_cannot_import(output):
    """The error of the callers names a function that workers cannot import."""
    expected = "the process that runs the batch finds no decorated function at_gate in here; define it in a module that"
    assert any(line.startswith(expected) for line in output)


def test_a_cluster_closed_under_load_answers_every_call(output):
    """Running calls get an error that says their batch was aborted, and queued calls one about the cluster."""
    assert "12 errors" == output[-1]


@pytest.mark.parametrize(("where", "fails"), [((), False), (("processes",), True)], ids=["dask", "processes"])
def test_the_example(where, fails):
    """Results from other processes are those of this one, before and after one of them is killed."""
    output = printed("cluster.py", *where)
    [[modules, workers]] = numbers("# modules, # workers", output)
    assert 2 == workers
    assert [[modules]] == numbers("items +# +pending +0", output)
    [[calls, failed]] = numbers("A process was killed during # calls; # of them failed and were repeated.", output)
    assert (modules, fails) == (calls, failed > 0)
    assert [[modules, modules]] == numbers(
        r"All results are equal to those of this process \(# of # modules\).", output
    )

"""Every example runs, says what it promises to say, and its numbers agree with each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from math import ceil
from pathlib import Path

import pytest

from tests.kit import processes
from tests.kit.examples import EXAMPLES, needs, numbers, printed
from tests.kit.processes import PATIENCE


@needs("tokenizers")
def test_tokenizer():
    """From threads and from tasks each paragraph is one call, fewer batches hold them all, and every id is right."""
    output = printed("tokenizer.py")
    [[paragraphs]] = numbers("# paragraphs, .+", output)
    assert ["64 threads", "256 asyncio tasks"] == re.findall("^From (.+)$", output, re.MULTILINE)
    assert [[paragraphs, paragraphs]] * 2 == numbers("calls made: #, total_items: #", output)
    savings = numbers("calls of the tokenizer: #, saved: #", output)
    assert [paragraphs] * 2 == [batches + saved for batches, saved in savings]
    assert all(0 < saved for _, saved in savings)
    equal = numbers(r"Ids are equal to direct encoding for every paragraph \(# of #, both ways\),", output)
    assert [[paragraphs, paragraphs]] == equal
    assert output.endswith("and total_items equals the number of calls made.\n")


@needs("sklearn")
def test_digits():
    """Calls that tasks make together fill their batches, and every image gets the prediction that it gets alone."""
    output = printed("digits.py")
    [[images]] = numbers("# images, .+", output)
    assert [[images]] == numbers(r"alone +# +[\d.]+ ms", output)
    assert [[ceil(images / 64)]] == numbers(r"batched +# +[\d.]+ ms", output)
    assert [[images, images]] == numbers("calls made: #, total_items: #", output)
    assert [[images, images]] == numbers(r"Predictions are equal to direct ones for every image \(# of #\)\.", output)


def test_lookup():
    """Each id gets its row or None, in order, from fewer queries than there are ids."""
    output = printed("lookup.py")
    [[characters]] = numbers("# characters .+", output)
    [[ids, items, missing]] = numbers("calls made: #, total_items: #, of them None: #", output)
    assert ids == items == characters + missing
    assert ["LATIN CAPITAL LETTER A", "None"] == re.findall(r"^U\+(?:0041|0378)  (.+)$", output, re.MULTILINE)
    assert [[ids]] == numbers("queries without batching: #", output)
    [[queries]] = numbers("queries with batching: #, .+", output)
    assert ids > queries
    equal = numbers(r"Names are equal to those looked up one by one, in the same order \(# of #\)\.", output)
    assert [[ids, ids]] == equal


def test_stream():
    """Texts are written in as many steps as the longest has, and each reader gets what it would get alone."""
    output = printed("stream.py")
    assert numbers("# characters of help texts, # beginnings of 6 characters", output)
    [[calls, items, batches]] = numbers("calls made: #, total_items: #, batches: #", output)
    assert (calls, 1) == (items, batches)
    assert [[calls - 1, 1]] == numbers("streams read to their end: #, left: #", output)
    [[in_turn, together]] = numbers("steps in turn: #, steps together: #", output)
    assert 2 * together < in_turn
    assert [[calls, calls]] == numbers(r"Texts are equal to those written one after the other \(# of #\)\.", output)


def server_programs():
    """Return the folder of the newest PostgreSQL server, in the path or where Debian keeps it, or None."""
    found = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return Path(found).parent if found else debian[-1].parent if debian else None


@pytest.fixture(scope="module")
def server():
    """Start a PostgreSQL server of our own, and return the variables that lead to it."""
    programs = server_programs()
    if programs is None:
        pytest.skip("there is no PostgreSQL server on this machine")
    # Its socket is in the folder, and a path to a socket must be short. It also refuses to be run by root.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    user = {"user": "nobody", "extra_groups": []} if hasattr(os, "geteuid") and os.geteuid() == 0 else {}
    if user:
        shutil.chown(folder, "nobody")

    def do(program, *arguments):
        arguments = [programs / program, "-D", folder / "data", *arguments]
        # A server that is started keeps what it is given for output open, so that is no pipe.
        with (folder / "output").open("w") as output:
            done = subprocess.run(
                arguments, stdout=output, stderr=output, cwd=folder, timeout=PATIENCE, check=False, **user
            )
        assert 0 == done.returncode, (folder / "output").read_text()

    try:
        do("initdb", "-U", "shop", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions")
        do("pg_ctl", "start", "-w", "-o", f"-F -k {folder} -c listen_addresses=")
        try:
            yield {"PGHOST": str(folder), "PGPORT": "5432", "PGUSER": "shop", "PGDATABASE": "postgres"}
        finally:
            do("pg_ctl", "stop", "-w", "-m", "immediate")
    finally:
        shutil.rmtree(folder)


def saved_queries(output):
    """Return how many queries there were, N+1 and batched, after looking whether all numbers agree."""
    [[alone]] = numbers(r"N\+1 +# +[\d.]+ s", output)
    [[batched]] = numbers(r"batched +# +[\d.]+ s", output)
    [[calls, items, missing]] = numbers("calls made: #, total_items: #, of them None: #", output)
    assert calls == items > missing > 0
    assert [[alone - batched, alone]] == numbers("queries saved: # of #", output)
    assert [[alone - calls] * 2] == numbers(
        r"Pages are equal to those made with a query for each customer \(# of #\)\.", output
    )
    return alone, batched


@needs("psycopg_pool")
def test_postgres(server):
    """On a server of its own, pages made together take a fraction of the queries that they take one by one."""
    output = printed("postgres.py", **server)
    assert re.match(r"PostgreSQL \d+, 8 connections\n", output)
    alone, batched = saved_queries(output)
    assert alone > 10 * batched


@needs("psycopg_pool")
def test_postgres_leaves_nothing_behind(server):
    """What the example made on the server is gone in the end."""
    import psycopg

    printed("postgres.py", **server)
    address = f"host={server['PGHOST']} port=5432 user=shop dbname=postgres"
    with psycopg.connect(address) as connection:
        schemas = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'batchify%'").fetchall()
    assert [] == schemas


@needs("psycopg_pool")
def test_postgres_without_a_server(tmp_path):
    """Where there is no server the example says so, and counts the same queries with SQLite."""
    output = printed("postgres.py", PGHOST=str(tmp_path))
    assert re.match(r"SQLite [\d.]+, in memory, as there is no PostgreSQL server\n", output)
    alone, batched = saved_queries(output)
    assert alone > 10 * batched


@needs("ray")
def test_ray():
    """Where Ray is installed its processes count the same words, in fewer batches than there are modules."""
    # Ray reports its start on the error stream.
    done = processes.run(EXAMPLES / "on_ray.py", traced=False)
    assert 0 == done.returncode, done.stderr
    [[modules, batches]] = numbers("[0-9,]+ words in # modules, in # batches on Ray", done.stdout)
    assert 1 < batches < modules

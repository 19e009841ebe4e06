"""Every example runs and prints its results, and its numbers agree with each other."""

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
    """However the calls are made, every id is right; calls that are made at once share batches."""
    output = printed("tokenizer.py")
    [[paragraphs]] = numbers("# paragraphs, .+", output)
    time = r" +[\d.]+ ms +[\d.]+ ms +[\d.]+x(?:  slower than the loop)?"
    assert [[paragraphs]] == numbers(f"a plain loop +# +none{time}", output)
    [[threads, batches_of_threads]] = numbers(f"64 threads +# +#{time}", output)
    [[tasks, batches_of_tasks]] = numbers(f"256 asyncio tasks +# +#{time}", output)
    assert paragraphs == threads == tasks > max(batches_of_threads, batches_of_tasks)
    assert [[200, 200]] == numbers(f"one caller +# +#{time}", output)
    assert "\nThe ids are equal to those of the loop. From 64 threads:\n" in output


@needs("sklearn")
def test_digits():
    """Calls of many tasks fill their batches, and every image gets the prediction that it gets alone."""
    output = printed("digits.py")
    [[images]] = numbers("# images, .+", output)
    assert [[images]] == numbers(r"alone +# +[\d.]+ ms", output)
    assert [[ceil(images / 64)]] == numbers(r"batched +# +[\d.]+ ms", output)
    assert [[images, images]] == numbers("calls made: #, total_items: #", output)
    assert [[images, images]] == numbers(r"All predictions are equal to direct predictions \(# of #\)\.", output)


@needs("sklearn")
def test_embed():
    """Sentences embedded from threads have the embeddings that they have alone, from fewer calls of the model."""
    # A real model reports its loading on the error stream.
    done = processes.run(EXAMPLES / "embed.py", traced=False)
    assert 0 == done.returncode, done.stderr
    [[sentences]] = numbers("# sentences of [0-9]+ to .+", done.stdout)
    ways = re.findall(r"^(.+?) +\d+ sentences/s +[\d.]+ x$", done.stdout, re.MULTILINE)
    assert ["one by one", "sorted beforehand", "in order of arrival", "by length"] == ways
    [[calls, items, batches]] = numbers("calls made: #, total_items: #, batches: #", done.stdout)
    assert sentences == calls == items > batches
    assert re.search("^Batching (pays|does not pay) here[.]$", done.stdout, re.MULTILINE)


@needs("sklearn")
def test_pipeline():
    """Both functions of a pipeline get every text, and the scores are those without batches."""
    output = printed("pipeline.py")
    [[texts]] = numbers("# texts", output)
    assert ["alone", "one function", "pipeline"] == re.findall(r"^(.+?) +[\d.]+ s$", output, re.MULTILINE)
    assert [[texts + 1, texts + 1]] * 2 == numbers("[a-z]+: calls made: #, total_items: #", output)
    assert [[texts, texts]] == numbers(r"All scores are equal to those without batches \(# of #\)\.", output)


@needs("aiolimiter")
@needs("stamina")
@needs("httpx")
def test_bulk_api():
    """Batches need few requests, failed ones are repeated, and a text that is too long is refused."""
    output = printed("bulk_api.py")
    [[alone, failed]] = numbers(r"alone +# requests, +# failed +[\d.]+ s", output)
    [[batched, _]] = numbers(r"batched +# requests, +# failed +[\d.]+ s", output)
    [[calls, items, batches]] = numbers("calls made: #, total_items: #, batches: #", output)
    assert (calls + failed, calls) == (alone, items)
    assert calls > batched >= batches
    assert "more than max_weight" in output
    assert [[calls, calls]] == numbers(r"All counts are right \(# of #\)\.", output)


@needs("strawberry")
def test_graphql_api():
    """All requests share a query, which a ``DataLoader`` makes for each, and all answers are equal."""
    output = printed("graphql_api.py")
    [[requests, nodes]] = numbers("# requests of # nodes in .+", output)
    queries = numbers(r"(?:a query each|DataLoader|batchify) +# queries +[\d.]+ s of CPU time", output)
    assert [[requests * nodes], [requests], [1]] == queries
    [[calls, answered, batches]] = numbers("calls made: #, answered_items: #, batches: #", output)
    assert (calls, calls, 1) == (requests * nodes, answered, batches)
    assert [[requests, requests]] == numbers(r"All answers are equal \(# of #\)\.", output)


def test_stream():
    """Texts written at once take few steps, and each reader gets the text that it gets alone."""
    output = printed("stream.py")
    assert numbers("# characters of help pages, # sequences of 6 characters", output)
    [[calls, items, batches]] = numbers("calls made: #, total_items: #, batches: #", output)
    assert (calls, 1) == (items, batches)
    assert [[calls - 1, 1]] == numbers("streams read to the end: #, closed early: #", output)
    [[in_turn, at_once]] = numbers("steps in turn: #, steps at once: #", output)
    assert 2 * at_once < in_turn
    assert [[calls, calls]] == numbers(r"All texts are equal to those written one after the other \(# of #\)\.", output)


def server_programs():
    """Return the folder of a PostgreSQL server: on the path, or the newest of Debian; ``None`` without one."""
    found = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return Path(found).parent if found else debian[-1].parent if debian else None


@pytest.fixture(scope="module")
def server():
    """Start a PostgreSQL server, and return the environment variables for its clients."""
    programs = server_programs()
    if programs is None:
        pytest.skip("there is no PostgreSQL server on this machine")
    # The folder has a short name because it contains the socket. The server refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    user = {"user": "nobody", "extra_groups": []} if hasattr(os, "geteuid") and os.geteuid() == 0 else {}
    if user:
        shutil.chown(folder, "nobody")

    def do(program, *arguments):
        arguments = [programs / program, "-D", folder / "data", *arguments]
        # The output is not a pipe, because the started server would keep it open.
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
    """Return the numbers of queries without and with batches; all numbers must agree."""
    [[alone]] = numbers(r"N\+1 +# +[\d.]+ s", output)
    [[batched]] = numbers(r"batched +# +[\d.]+ s", output)
    [[calls, items, missing]] = numbers("calls made: #, total_items: #, of them None: #", output)
    assert calls == items > missing > 0
    assert [[alone - batched, alone]] == numbers("queries saved: # of #", output)
    assert [[alone - calls] * 2] == numbers(
        r"All pages are equal to those with one query for each customer \(# of #\)\.", output
    )
    return alone, batched


@needs("psycopg_pool")
def test_postgres(server):
    """On a server, pages built with batches take a fraction of the queries."""
    output = printed("postgres.py", **server)
    assert re.match(r"PostgreSQL \d+, 8 connections\n", output)
    alone, batched = saved_queries(output)
    assert alone > 10 * batched


@needs("psycopg_pool")
def test_postgres_leaves_nothing_behind(server):
    """The example removes its tables from the server."""
    import psycopg

    printed("postgres.py", **server)
    address = f"host={server['PGHOST']} port=5432 user=shop dbname=postgres"
    with psycopg.connect(address) as connection:
        schemas = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'batchify%'").fetchall()
    assert [] == schemas


@needs("psycopg_pool")
def test_postgres_without_a_server(tmp_path):
    """Without a server, the example says so, and counts the same queries with SQLite."""
    output = printed("postgres.py", PGHOST=str(tmp_path))
    assert re.match(r"SQLite [\d.]+ in memory, because there is no PostgreSQL server\n", output)
    alone, batched = saved_queries(output)
    assert alone > 10 * batched


@needs("ray")
def test_ray():
    """Processes of Ray count the same words, in fewer batches than there are modules."""
    # Ray reports its start on the error stream.
    done = processes.run(EXAMPLES / "on_ray.py", traced=False)
    assert 0 == done.returncode, done.stderr
    [[modules, batches]] = numbers("[0-9,]+ words in # modules, in # batches on Ray", done.stdout)
    assert 1 < batches < modules

"""The core decides which items leave together, when, and why, and which answer each caller gets.

It must not know clocks, locks, threads, event loops or logging: ``now`` is an argument, a waiter is an opaque object,
and the core calls nothing back. The shells, ``_asyncio`` and ``_threads``, carry out its decisions.
"""

"""The asyncio shell: drives a batcher on the event loops that call it.

It keeps the clock, timers, tasks and futures, and decides nothing about batches. It must not know worker threads.
"""

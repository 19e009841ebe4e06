"""The thread shell: drives a batcher with worker threads.

It keeps the clock, the lock, workers and blocked callers, and decides nothing about batches. It must not know event
loops.
"""

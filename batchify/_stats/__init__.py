"""Statistics: the counters of a batcher, the snapshots that users see, and totals for exporters.

It decides what is counted and how a snapshot looks. It must not know clocks or engines: engines pass durations.
"""

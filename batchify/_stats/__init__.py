"""Statistics: the counters of a batcher, the snapshots that users see, and totals for exporters.

It decides which numbers are counted, and how a snapshot looks. It must not know clocks or engines.
"""

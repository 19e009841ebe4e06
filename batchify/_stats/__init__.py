"""Statistics: the counters of a batcher, the snapshot that users see, and totals for exporters.

It must not know clocks or engines: whoever knows the time passes durations.
"""

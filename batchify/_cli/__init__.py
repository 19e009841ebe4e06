"""The command line: measures a batch function, recommends options, and compares predictions with measurements.

It decides what to measure and how to show it. It must not decide what an option does to latency: the core and
``_planning`` do.
"""

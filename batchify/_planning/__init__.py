"""Predictions: what options would do to latency, from a discrete-event simulation that drives the core.

It must not know real clocks, or anything that runs a batch.
"""

"""Predictions: how options affect latency, from a discrete-event simulation that drives the core.

It decides what a batch costs and which options are best. It must not know real clocks, or anything that runs a batch.
"""

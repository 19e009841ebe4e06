"""Predictions: how options affect latency, from a discrete-event simulation that drives the core.

It decides the cost of a batch, and which options are best. It must not know real clocks or engines.
"""

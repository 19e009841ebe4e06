"""The benchmark: batchify compared with a minimal implementation and with other libraries.

``python -m tests.bench`` runs it from a checkout. ``README.md`` explains the output.
"""

"""The benchmark: batchify beside the least code that can do the same, and beside others.

One command runs it from a checkout: ``python -m tests.bench``. ``README.md`` says how to read what it prints.
"""

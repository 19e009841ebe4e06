"""The decorator: the functions that ``microbatch`` accepts, and the members of a decorated function.

It decides which batcher a call belongs to. It must not know how a batcher works.
"""

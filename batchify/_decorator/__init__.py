"""The decorator: what ``microbatch`` accepts, and what a decorated function offers.

It decides which batcher a call belongs to. It must not know how a batcher works.
"""

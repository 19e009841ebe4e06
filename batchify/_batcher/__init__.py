"""What one batcher is, whatever drives it: its options, its calls before they are queued, its place in the registry.

It must not know event loops or worker threads.
"""

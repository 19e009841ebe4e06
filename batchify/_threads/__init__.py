"""The thread engine: drives a batcher with worker threads. It must not know event loops."""

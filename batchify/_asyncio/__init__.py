"""The asyncio engine: drives a batcher on the event loops of its callers. It must not know worker threads."""

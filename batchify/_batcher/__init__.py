"""The parts of a batcher that both engines share. They must not know event loops or worker threads."""

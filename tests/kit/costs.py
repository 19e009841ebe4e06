"""Costs with known parameters, for tests of predictions and measurements."""

from batchify._planning.cost import Cost

SIZES = (1, 2, 4, 8, 16, 32)


def linear_cost(a, b, sizes=SIZES, **options):
    """Return the cost of a function that runs for ``a + b * size`` seconds."""
    seconds = {size: a + b * size for size in sizes}
    return Cost(seconds, seconds, **options)

"""Costs with known parameters, for tests of predictions and measurements."""

from batchify._planning.cost import Cost

SIZES = (1, 2, 4, 8, 16, 32)


def linear_cost(a, b, sizes=SIZES, slowdown=None, **options):
    """Return the cost of a function that runs for ``a + b * size`` seconds, and ``slowdown`` times as long by slots."""
    seconds = {size: a + b * size for size in sizes}
    loaded = {
        slots: {size: factor * time for size, time in seconds.items()}
        for slots, factor in {1: 1.0, **(slowdown or {})}.items()
    }
    return Cost(seconds, seconds, loaded, **options)

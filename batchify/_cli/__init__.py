"""The command line: measures a batch function, recommends options, and compares predictions with measurements.

It decides the measurements and how they are shown. It must not decide the effect of options, as ``_planning`` does.
"""

"""The command line: measures a batch function, recommends options, and compares predictions with measurements."""

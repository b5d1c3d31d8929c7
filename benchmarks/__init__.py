"""Benchmarks of this package's and other libraries' planners, and ablations; results are in `benchmarks/results`."""

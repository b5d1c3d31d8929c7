"""Benchmarks of the planners, the peers' and ours, and studies of single parts; results are in `benchmarks/results`."""

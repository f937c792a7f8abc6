"""Benchmarks: fastnn and its peers on the same steps, in one run."""

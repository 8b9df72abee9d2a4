"""Benchmarks: each a command (`testbed bench NAME`), each comparing within one run."""

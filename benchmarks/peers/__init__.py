"""The calling ends of other systems, each a process that `benchmarks.driver` describes."""

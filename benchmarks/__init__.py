"""What roost costs and what it reaches, measured beside a bare loop in the same run: `python -m benchmarks`."""

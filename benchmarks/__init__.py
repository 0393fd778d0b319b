"""What marketdash costs, measured: `python -m benchmarks --only engine,page`."""

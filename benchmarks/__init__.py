"""Our own experiments, a command each, run from a checkout: `python -m benchmarks.cost --help`. runs/ holds how they were run."""

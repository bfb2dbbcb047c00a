#!/usr/bin/env bash
# All ways of hiding regions, side by side: what each changes that it should not, leak, agreement, cost and speed-up.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m benchmarks.ways_of_hiding --data scratch/earlier --limit 20 --timed 10 --out results/hiding.csv

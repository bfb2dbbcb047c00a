#!/usr/bin/env bash
# Images a minute of `eyeline collect` with one Ray worker and with two. Run with nothing else running.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/eyeline scenes --wild --seeds 7300100:7300106 --out scratch/workers
.venv/bin/python -m benchmarks.workers --data scratch/workers --images 30 --rounds 1 --out results/workers.csv

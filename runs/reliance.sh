#!/usr/bin/env bash
# Whether guessing without image and thinking tells answers that can be had without looking: 60 test scenes, a quarter of them with the
# answer in the question, thought again without the image.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
.venv/bin/python -m benchmarks.reliance --scores scratch/reliance --out results/reliance.csv

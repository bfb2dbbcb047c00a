#!/usr/bin/env bash
# Exact answers of the embedded model on 300 test scenes, with the image and with the whole image blank.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m eyeline.evaluation.accuracy --data scratch/test-0 --data scratch/test-1 --out results/accuracy.csv

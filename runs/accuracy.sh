#!/usr/bin/env bash
# Exact answers on test scenes: the image, blank, evidence blank; both of counterfactual pairs; another reading in the trace. Wild: as people photograph them.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m eyeline.evaluation.accuracy --data scratch/pairs --out results/accuracy.csv
.venv/bin/python -m eyeline.evaluation.accuracy --data scratch/wild-pairs --out results/accuracy_wild.csv

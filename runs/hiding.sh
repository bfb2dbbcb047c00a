#!/usr/bin/env bash
# Attention knockout against filled pixels on 50 test scenes: what leaks through the vision tower, and how far they agree.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m eyeline.evaluation.hiding --data scratch/test-0 --out results/hiding.csv

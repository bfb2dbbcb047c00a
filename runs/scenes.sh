#!/usr/bin/env bash
# Draws the scenes that the other runs use: 110 of each family to fit estimators on, in two halves, 60 of each to test.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/eyeline scenes --seeds 7000000:7000055 --out scratch/fit-0
.venv/bin/eyeline scenes --seeds 7000055:7000110 --out scratch/fit-1
.venv/bin/eyeline scenes --seeds 8000000:8000030 --out scratch/test-0
.venv/bin/eyeline scenes --seeds 8000030:8000060 --out scratch/test-1
.venv/bin/eyeline scenes --seeds 8000000:8000060 --pairs --out scratch/pairs  # both, with their counterfactuals
.venv/bin/eyeline scenes --seeds 8000000:8000030 --pairs --wild --out scratch/wild-pairs

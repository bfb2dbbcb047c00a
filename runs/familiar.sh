#!/usr/bin/env bash
# Fits and tests the check of whether the embedded model can read an image. Needs scikit-image, matplotlib and segno.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
.venv/bin/python -m benchmarks.familiar --weights eyeline/models/qwen3-vl-mini/familiar.safetensors --out results/familiar.csv

#!/usr/bin/env bash
# Fits and tests the checks of whether the models that ship can read an image. Needs scikit-image, matplotlib and segno.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
.venv/bin/python -m benchmarks.familiar --weights eyeline/models/qwen3-vl-mini/familiar.safetensors --out results/familiar.csv
.venv/bin/python -m benchmarks.familiar --model glm4v-mini --weights minis/eyeline_minis/glm4v-mini/familiar.safetensors --out results/familiar_glm4v.csv

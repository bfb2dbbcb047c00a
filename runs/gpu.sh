#!/usr/bin/env bash
# On a machine with CUDA and 40 GB of its memory, in at most nine minutes: exactness, an 8B model's shape in bfloat16 with random weights,
# two streams at once, overhead, attribution, rivals, memory. Rows are written as they come. It has not been run on CUDA yet;
# runs/gpu.sh --device cpu --tiny --out FILE.csv tries it anywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
timeout 540 "${PYTHON:-.venv/bin/python}" -m benchmarks.gpu --out results/gpu.csv "$@"

#!/usr/bin/env bash
# Trains the embedded model from scratch, or from its last checkpoint in scratch/mini, and exports it with its learning curve.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000
.venv/bin/python -m eyeline.training.mini --out scratch/mini --export eyeline/models/qwen3-vl-mini "$@"
cp scratch/mini/log.jsonl results/train_mini.jsonl

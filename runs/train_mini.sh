#!/usr/bin/env bash
# Trains the embedded model and exports it with its learning curve: from the last checkpoint in scratch/mini, else from the
# weights that this repository shipped second (docs/log.md tells how those came about).
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000
model=eyeline/models/qwen3-vl-mini
if [ ! -e scratch/mini/place.json ]; then
  second=$(git log --format=%H -- $model/model.safetensors | tail -2 | head -1)
  mkdir -p scratch/second
  for file in model.safetensors tokenizer.json tokenizer_config.json chat_template.jinja; do
    git show "$second:$model/$file" > scratch/second/$file
  done
fi
.venv/bin/python -m eyeline.training.mini --start scratch/second --out scratch/mini --export $model "$@"
cp scratch/mini/log.jsonl results/train_mini.jsonl

#!/usr/bin/env bash
# Trains the embedded model and exports it with its learning curve: from the last checkpoint in scratch/mini, else from the
# first model that this repository shipped (results/train_first.jsonl), cut down to the present one's size.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000
if [ ! -e scratch/mini/place.json ]; then
  model=eyeline/models/qwen3-vl-mini
  first=$(git log --diff-filter=A --format=%H -- $model/model.safetensors | tail -1)
  mkdir -p scratch/first
  for file in model.safetensors config.json generation_config.json tokenizer.json tokenizer_config.json; do
    git show "$first:$model/$file" > scratch/first/$file
  done
  .venv/bin/python -m eyeline.training.shrink scratch/first --out scratch/mini
fi
.venv/bin/python -m eyeline.training.mini --out scratch/mini --export eyeline/models/qwen3-vl-mini "$@"
cp scratch/mini/log.jsonl results/train_mini.jsonl

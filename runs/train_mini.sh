#!/usr/bin/env bash
# Trains the embedded model further on wild scenes and exports it with its learning curve: from the last checkpoint in
# scratch/sixth, else from the weights that this repository shipped fifth (docs/log.md tells how those came about).
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000
model=eyeline/models/qwen3-vl-mini
if [ ! -e scratch/fifth/model.safetensors ]; then
  fifth=$(git log --reverse --format=%H -- $model/model.safetensors | sed -n 5p)
  mkdir -p scratch/fifth
  for file in model.safetensors tokenizer.json tokenizer_config.json chat_template.jinja; do
    git show "$fifth:$model/$file" > scratch/fifth/$file
  done
fi
.venv/bin/python -m eyeline.training.mini --start scratch/fifth --out scratch/sixth --export $model "$@"
cp scratch/sixth/log.jsonl results/train_mini.jsonl

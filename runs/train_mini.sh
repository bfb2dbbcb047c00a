#!/usr/bin/env bash
# Trains the embedded model on wild scenes and exports it with its learning curve: from the last checkpoint in scratch/fourth, else
# from the weights that this repository shipped third (docs/log.md tells how those came about, and what differs in detail).
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000
model=eyeline/models/qwen3-vl-mini
if [ ! -e scratch/third/model.safetensors ]; then
  third=$(git log --reverse --format=%H -- $model/model.safetensors | sed -n 3p)
  mkdir -p scratch/third
  for file in model.safetensors tokenizer.json tokenizer_config.json chat_template.jinja; do
    git show "$third:$model/$file" > scratch/third/$file
  done
fi
.venv/bin/python -m eyeline.training.mini --start scratch/third --out scratch/fourth --export $model "$@"
cp scratch/fourth/log.jsonl results/train_mini.jsonl

#!/usr/bin/env bash
# Trains a miniature from its last checkpoint, else from nothing or from the weights it begins with, and exports it:
#   runs/train_minis.sh NAME [FOLDER OF CHECKPOINTS] [options of eyeline.training.mini]
# NAME: qwen3-vl-mini (goes on from the weights that this repository shipped sixth; docs/log.md tells how those came about),
# glm4v-mini (borrows matrices from qwen3-vl-mini), mimo-vl-mini (from nothing), cosmos-mini (goes on from mimo-vl-mini).
# The same command starts and resumes. `--steps long N` ends the stage of constant rates after N steps.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4000000000
name=${1:?name of a miniature}
out=${2:-scratch/minis/$name}
shift $(($# < 2 ? $# : 2))
start=()
case $name in
  qwen3-vl-mini)
    sixth=scratch/minis/sixth
    if [ ! -e $sixth/model.safetensors ]; then
      model=eyeline/models/$name
      commit=$(git log --reverse --format=%H -- $model/model.safetensors | sed -n 6p)
      mkdir -p $sixth
      for file in model.safetensors tokenizer.json tokenizer_config.json chat_template.jinja; do
        git show "$commit:$model/$file" > $sixth/$file
      done
    fi
    start=(--start $sixth) ;;
  glm4v-mini) start=(--start eyeline/models/qwen3-vl-mini) ;;
  mimo-vl-mini) ;;
  cosmos-mini) start=(--start scratch/minis/mimo-vl-mini/export) ;;
  *) echo "No miniature $name" >&2; exit 1 ;;
esac
.venv/bin/python -m eyeline.training.mini "$name" "${start[@]}" --out "$out" --export "$out/export" "$@"

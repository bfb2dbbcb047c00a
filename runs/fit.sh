#!/usr/bin/env bash
# Collects effects on 800 scenes and fits two estimators: ours on all features (shipped), and the paper's on attention alone.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/eyeline collect --data scratch/fit --out scratch/collected
.venv/bin/eyeline fit scratch/collected --name eyeline-mini --out eyeline/models/qwen3-vl-mini/estimator
.venv/bin/eyeline fit scratch/collected --kinds attention --name paper-attention --out scratch/paper-attention

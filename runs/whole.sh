#!/usr/bin/env bash
# Qwen3-VL-2B in its published shape, random weights: decoding with and without attribution, attribution against length, rivals,
# memory. Run with nothing else running; an hour and a half on two cores, 12 GB. Options of benchmarks.whole go behind: --tokens 4000 for a
# longer text, --shape tiny for a try.
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-.venv/bin/python}" -m benchmarks.whole --out results/whole.csv "$@"

#!/usr/bin/env bash
# Qwen3-VL-2B in its published shape, random weights: decoding with and without attribution, attribution against length, rivals,
# memory. Run with nothing else running; some hours on two cores, 12 GB. Options of benchmarks.whole go behind, --shape tiny for a try.
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-.venv/bin/python}" -m benchmarks.whole --out results/whole.csv "$@"

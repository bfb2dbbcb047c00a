#!/usr/bin/env bash
# Qwen3-VL-2B in its published shape, random weights: decoding with and without attribution, attribution against length, rivals,
# memory. Run with nothing else running; an hour and a half on two cores, 12 GB, and with --tokens 4000 half an hour and 24 GB more.
# Options of benchmarks.whole go behind: --shape mini --precision float32 --written 300 --out FILE.csv is the embedded model.
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-.venv/bin/python}" -m benchmarks.whole --out results/whole.csv "$@"

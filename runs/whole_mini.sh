#!/usr/bin/env bash
# The embedded model as runs/whole.sh measures a published shape, with traces of 300 tokens. Run with nothing else running.
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-.venv/bin/python}" -m benchmarks.whole --shape mini --precision float32 --written 300 --tokens 250 --tokens 1000 --tokens 4000 \
  --positions 2600 --out results/whole_mini.csv "$@"

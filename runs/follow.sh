#!/usr/bin/env bash
# What following another server costs its clients, at 100 tokens a second. Run with nothing else running.
set -euo pipefail
cd "$(dirname "$0")/.."
OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.follow_pace --questions 12 --out results/follow_pace.csv

#!/usr/bin/env bash
# What reading earlier text costs the decoding thread. Run with nothing else running.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m benchmarks.earlier_text --data scratch/test-0 --rounds 15 --out results/earlier_text.csv

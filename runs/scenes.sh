#!/usr/bin/env bash
# Draws the scenes that the other runs use: 160 of each family to fit estimators on, 60 of each to test.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/eyeline scenes --seeds 7000000:7000160 --out scratch/fit
.venv/bin/eyeline scenes --seeds 8000000:8000060 --out scratch/test

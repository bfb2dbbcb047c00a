#!/usr/bin/env bash
# Draws the scenes that the other runs use, as people photograph them: 800 of each family to fit estimators on and 50 to test them,
# in two halves each, the tests of seeds on which no choice was ever made; 50 of each family that earlier versions were tested on, and some of their choices with them; and scenes to test the
# model's answers with their counterfactuals, as photographed and, of each family 60, as drawn.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/eyeline scenes --wild --seeds 7000000:7000400 --out scratch/fit-0
.venv/bin/eyeline scenes --wild --seeds 7000400:7000800 --out scratch/fit-1
.venv/bin/eyeline scenes --wild --seeds 8000200:8000225 --out scratch/test-0
.venv/bin/eyeline scenes --wild --seeds 8000225:8000250 --out scratch/test-1
.venv/bin/eyeline scenes --wild --seeds 8000000:8000050 --out scratch/earlier
.venv/bin/eyeline scenes --wild --seeds 8000000:8000100 --pairs --out scratch/pairs
.venv/bin/eyeline scenes --seeds 8000000:8000060 --pairs --out scratch/plain-pairs

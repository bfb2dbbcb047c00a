#!/usr/bin/env bash
# Attribution against the length of the trace, beside rivals that run the model again. Run with nothing else running.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
.venv/bin/python -m benchmarks.cost --data scratch/earlier --tokens 250 --tokens 1000 --rounds 3 --positions 20000 \
  --out results/cost.csv
wide() {  # four layers of an 8B model's width, random: half an hour
  .venv/bin/python -m benchmarks.cost --wide 4 --data scratch/earlier "$@"
}
wide --tokens 250 --tokens 1000 --rounds 3 --positions 3000 --out results/cost_wide.csv
# results/cost_wide_amx.csv holds what the lines before and after this one wrote, from a CPU with AMX
wide --tokens 4000 --rounds 1 --positions 5500 --out results/cost_wide_4000.csv
wide --precision float32 --tokens 4000 --rounds 1 --positions 5500 --out results/cost_wide_float32.csv  # for a CPU without bfloat16
rm results/cost_wide_4000.png results/cost_wide_float32.png  # one length is no curve
.venv/bin/python -m benchmarks.flops --out results/flops_pixels.csv  # operations on the shapes of an 8B model

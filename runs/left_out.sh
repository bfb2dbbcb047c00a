#!/usr/bin/env bash
# The embedded model read with general weights of two other models alone, the first that was ever shipped here and glm4v-mini, on the
# scenes of runs/faithfulness.sh. Wants the collections of runs/general.sh and of `runs/table.sh glm4v-mini eyeline/general`.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
. runs/halves.sh
.venv/bin/eyeline fit-general scratch/collected-first scratch/table/glm4v-mini/collected --name general --out scratch/general-of-others
evaluate_halves left-out 35 scratch/general-of-others eyeline,attn-lrp,exhaustive
cp scratch/left-out/table.csv results/left_out.csv
cp scratch/left-out/versus.csv results/left_out_versus.csv

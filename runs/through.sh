#!/usr/bin/env bash
# What answers rest on through the thinking, and sentences on earlier ones: draws scenes of seeds that nothing else uses, collects
# and fits on 240 of them with the shipped estimator of regions, and measures on 150 others beside rivals.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
eyeline() { .venv/bin/eyeline "$@"; }
shipped=eyeline/models/qwen3-vl-mini/estimator
eyeline scenes --wild --seeds 7700000:7700024 --out scratch/through-fit-0
eyeline scenes --wild --seeds 7700024:7700048 --out scratch/through-fit-1
eyeline scenes --wild --seeds 8000600:8000615 --out scratch/through-test-0
eyeline scenes --wild --seeds 8000615:8000630 --out scratch/through-test-1
both() {  # command, folders of scenes, folder of measurements
  eyeline "$1" --data "$2-0" --out "$3" --limit 1  # opens it
  eyeline "$1" --data "$2-1" --out "$3" & other=$!
  eyeline "$1" --data "$2-0" --out "$3"
  wait $other
}
both collect-through scratch/through-fit scratch/through
eyeline fit-through scratch/through --estimator $shipped --out $shipped
both evaluate-through scratch/through-test scratch/through-test
eyeline evaluate-through --data scratch/through-test-0 --out scratch/through-test  # the table of all
cp scratch/through-test/totals.csv results/totals.csv

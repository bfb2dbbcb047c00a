#!/usr/bin/env bash
# Sources and numbers of regions: LDS of estimators fitted on each, and of the one fitted on native regions.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
run() {
  .venv/bin/python -m benchmarks.sources --fit scratch/fit-0 --test scratch/test-0 --runs scratch/sources "$@"
}
run --sources native --out scratch/sources-native.csv  # the others need it
run --sources native:8,native:16,native:48 --out scratch/sources-0.csv & other=$!
run --sources slic,grid,voronoi,random --out scratch/sources-1.csv
wait $other
run --out results/sources.csv

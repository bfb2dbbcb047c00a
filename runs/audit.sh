#!/usr/bin/env bash
# Does an audit tell the truth, and does it raise the alarm? A real server with --audit, 40 scenes of seeds that nothing else uses.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
.venv/bin/eyeline scenes --wild --seeds 8000640:8000648 --out scratch/audit-scenes
.venv/bin/python -m benchmarks.audit_truth --data scratch/audit-scenes --out results/audit.csv

# To be sourced: evaluate_halves RUN SCENES PAPER METHODS evaluates so many test scenes of each half, one process for each half,
# with the shipped estimator and the paper's, into scratch/RUN; its table and page are of both halves.
evaluate_halves() {
  local run=scratch/$1 scenes=$2 paper=$3 methods=$4 other
  evaluate() {
    .venv/bin/eyeline evaluate --out "$run" --limit "$2" --data "$1" \
      --estimator eyeline/models/qwen3-vl-mini/estimator --estimator "$paper" --methods "$methods"
  }
  evaluate scratch/test-0 1  # opens the run
  evaluate scratch/test-0 "$scenes" & other=$!
  evaluate scratch/test-1 "$scenes"
  wait $other
  evaluate scratch/test-1 "$scenes"  # the table of both halves
}

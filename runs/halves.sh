# To be sourced: evaluate_halves RUN SCENES ESTIMATORS METHODS [OPTIONS] evaluates so many test scenes of each half, one process for each
# half, with the estimators in these folders, into scratch/RUN; its table and page are of both halves.
evaluate_halves() {
  local run=scratch/$1 scenes=$2 methods=$4 other
  local estimators=() estimator
  for estimator in $3; do estimators+=(--estimator "$estimator"); done
  shift 4
  evaluate() {
    .venv/bin/eyeline evaluate --out "$run" --limit "$scenes" --data "$1" "${estimators[@]}" --methods "$methods" "${@:2}"
  }
  evaluate scratch/test-0 "$@" & other=$!
  evaluate scratch/test-1 "$@"
  wait $other
  evaluate scratch/test-1 "$@"  # the table of both halves
}
# in_halves COMMAND SCENES RUN [OPTIONS] makes a run of these scenes in two processes, each every other scene.
in_halves() {
  local other
  .venv/bin/eyeline "$1" --data "$2" --out "$3" --shard 0/2 "${@:4}" & other=$!
  .venv/bin/eyeline "$1" --data "$2" --out "$3" --shard 1/2 "${@:4}"
  wait $other
}

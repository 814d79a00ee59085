#!/usr/bin/env bash
# Runs the cluster tests: on a one-node Kubernetes of their own where this host can have one (root, Go, containerd or apt-get), else on
# the cluster that KUBECONFIG and YOLASTIC_OPERATOR_IMAGE, YOLASTIC_WORKER_IMAGE name; else they say why they were skipped.
# Usage: run.sh [PYTEST_ARGS], with the project's environment set up. Whatever happens, no node is left.
set -euo pipefail
HERE=$(dirname "$(realpath "$0")")
ROOT=$(realpath "$HERE/../..")
PYTHON=$ROOT/.venv/bin/python

PYTEST=
clear_away() {
  kill -KILL -- "-$PYTEST" 2>/dev/null || true   # what it had started and left
  "$HERE/node/down.sh" "$PYTEST"
}
take_down() {
  trap - EXIT HUP INT TERM
  if [ -n "$PYTEST" ]; then
    # Nothing to end is the usual case and no error: the exit status is that of the tests.
    { kill "$PYTEST" && wait "$PYTEST"; } 2>/dev/null || true
    clear_away
  fi
}
trap take_down EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

run() {
  local status=0
  # In the background, because a shell heeds its traps only between commands; in a process group of its own, to be ended as one.
  setsid "$PYTHON" -m pytest -m cluster --durations=10 "$@" &
  PYTEST=$!
  wait "$PYTEST" || status=$?
  clear_away
  PYTEST=
  return $status
}

cd "$ROOT"
status=0
if [ $# -gt 0 ]; then
  run "$@" || status=$?
else
  run tests/cluster || status=$?
  # The operator's tests need an API server alone, of what the node's tests have built by then. They mostly wait: three at a time.
  run tests/operator/kube -n 3 || status=$?
fi
exit $status

#!/usr/bin/env bash
# One sitting on a GPU, at most 25 minutes, nothing from the network: the tests marked gpu, steps of the two published
# networks, two ranks on one device, the evidence cells at 28x28; all into one JSON.
#   experiments/gpu.sh OUT.json          on the GPU
#   experiments/gpu.sh OUT.json --cpu    the same at toy size on a CPU, within about a minute
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec "$PYTHON" experiments/gpu.py "$@"

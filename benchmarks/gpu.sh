#!/usr/bin/env bash
# Everything about a GPU in under eight minutes: bash benchmarks/gpu.sh [--json FILE]. See benchmarks/gpu.py.
# Uses the python that PYTHON names (default: python3); torch must be a CUDA build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export MLFLOW_DISABLE_TELEMETRY=true ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec timeout 590 "${PYTHON:-python3}" -m benchmarks.gpu "$@"

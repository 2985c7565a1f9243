#!/usr/bin/env bash
# Runs the tests, in .venv unless VENV names another environment; makes and fills it when needed.
#   bash tests/run.sh [pytest arguments]      PYTHON names the interpreter to make it with (default: python3)
# The tests run in as many processes as there are cores; -n 0 runs them in one, as --pdb needs it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source examples/common/setup_venv.sh
setup_venv quickstart test
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # tiny tensors: threads only wait for each other
# A file a process, whose fixtures its tests share; in the order of conftest.py.
exec python -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"

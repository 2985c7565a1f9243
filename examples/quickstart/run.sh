#!/usr/bin/env bash
# Trains a small switchable BART on docstrings, end to end: at most 12 minutes on two cores once the environment exists.
#   bash examples/quickstart/run.sh [--fresh] [--data DIR] [--updates N] ...     (--help lists all options)
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../setup_venv.sh"
setup_venv quickstart
cd "$here/../.."  # where --user-dir fairseq_switchdec is found
exec "$VENV/bin/python" "$here/quickstart.py" "$@"

#!/usr/bin/env bash
# Trains a small switchable BART on docstrings, end to end: at most 12 minutes on two cores once the environment exists.
#   bash examples/quickstart/run.sh [--fresh] [--data DIR] [--updates N] ...     (--help lists all options)
# From any folder; a relative DIR or FILE is one of the repository's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source examples/common/setup_venv.sh
setup_venv quickstart
exec "$VENV/bin/python" -m examples.quickstart "$@"

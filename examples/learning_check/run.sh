#!/usr/bin/env bash
# Does the policy learn to read its input? Typed copy through the real commands, under 15 minutes on two cores.
#   bash examples/learning_check/run.sh [--rule quality|budget|fixed|eq7] [--seed N] [--full] [--out DIR]
# From any folder; a relative DIR or FILE is one of the repository's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source examples/common/setup_venv.sh
setup_venv quickstart
exec "$VENV/bin/python" -m examples.learning_check "$@"

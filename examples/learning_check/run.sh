#!/usr/bin/env bash
# Does the policy learn to read its input? Typed copy through the real commands, under 15 minutes on two cores.
#   bash examples/learning_check/run.sh [--rule quality|budget|fixed|eq7] [--seed N] [--full] [--out DIR]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../setup_venv.sh"
setup_venv quickstart
cd "$here/../.."  # where --user-dir fairseq_switchdec is found
exec "$VENV/bin/python" "$here/learning_check.py" "$@"

#!/usr/bin/env bash
# Times generation (or, with --training, training) of BART-large on the same weights in stock fairseq, here, and elsewhere.
#   bash examples/benchmark/run.sh [--batch 1 8] [--precision fp32 bf16 int8] [--training] ...   (--help lists all options)
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../setup_venv.sh"
setup_venv benchmark
exec "$VENV/bin/python" "$here/benchmark.py" "$@"

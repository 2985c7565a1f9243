#!/usr/bin/env bash
# Times generation (or, with --training, training) of BART-large on the same weights in stock fairseq, here, and elsewhere.
#   bash examples/benchmark/run.sh [--batch 1 8] [--precision fp32 bf16 int8] [--training] ...   (--help lists all options)
# From any folder; a relative DIR or FILE is one of the repository's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source examples/common/setup_venv.sh
setup_venv benchmark
exec "$VENV/bin/python" -m examples.benchmark "$@"

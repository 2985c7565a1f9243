#!/usr/bin/env bash
# Fetches a pretrained language model, fine-tunes it plainly and switchably, and shows what it saves: half an hour on two
# cores with AVX-512 once the environment exists, an hour without.
#   bash examples/pretrained/run.sh [--fresh] [--data DIR] [--updates N] ...     (--help lists all options)
# From any folder; a relative DIR or FILE is one of the repository's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source examples/common/setup_venv.sh
setup_venv hugging-face plot
exec "$VENV/bin/python" -m examples.pretrained "$@"

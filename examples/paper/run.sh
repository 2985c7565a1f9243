#!/usr/bin/env bash
# The paper's tables on a pretrained model: hours on two cores, resumable stage by stage.
#   bash examples/paper/run.sh TABLE... [--seeds N] ...     (--list says what there is, --help lists all options)
# From any folder; a relative DIR or FILE is one of the repository's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source examples/common/setup_venv.sh
setup_venv hugging-face plot
exec "$VENV/bin/python" -m examples.paper "$@"

#!/usr/bin/env bash
# Scores what generate.sh wrote: ROUGE with its intervals beside Lead-3, and the share of FLOPs that was run.
#   bash examples/summarization/evaluate.sh OUT RAW [python -m fairseq_switchdec score's options]
#     OUT  the folder given to generate.sh; gets scores.json
#     RAW  the folder given to prepare.sh
# Options such as --files2rouge, --ptb, or --hypotheses BART=plain/generate-test.txt for a second system.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
usage 2 "$@"
out="$1" raw="$2"
shift 2
need "$out/generate-test.txt" "generate.sh writes it"
need "$out/report.json" "generate.sh writes it when all of the test set is generated; run it (again)"
for side in source target; do
    need "$raw/test.$side" "the texts that prepare.sh was given"
done
"$PYTHON" -m fairseq_switchdec score --hypotheses "SD=$out/generate-test.txt" --references "$raw/test.target" \
    --source "$raw/test.source" --json "$out/scores.json" "$@"
"$PYTHON" - "$out/report.json" << 'EOF'
import json, sys

from fairseq_switchdec.generation.report import summary_lines

with open(sys.argv[1], encoding="utf-8") as file:
    print("\nSD: " + summary_lines(json.load(file)))
EOF

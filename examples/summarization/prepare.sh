#!/usr/bin/env bash
# Turns texts into the data that train.sh and generate.sh read: the model's BPE, then fairseq-preprocess.
#   bash examples/summarization/prepare.sh [RECIPE] RAW BPE BIN [fairseq-preprocess's options]
#     RECIPE  gpt2, t5 or llama; cnndm or xsum, which are BART's, where none is given
#     RAW     folder of {train,valid,test}.{source,target}: one text a line, neither tokenized nor lowercased
#     BPE     folder of encoder.json, vocab.bpe and dict.txt; of gpt2, t5 and llama the imported model's
#     BIN     the folder to make; the encoded text is kept beside it, in BIN.bpe
#   SPLITS   what to prepare (default: "train valid test")
#   WORKERS  processes (default: one for each core)
# What has finished is kept: after a kill, the same command goes on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
recipe=cnndm
case "${1:-}" in cnndm | xsum | gpt2 | t5 | llama) recipe="$1" && shift ;; esac
usage 3 "$@"
settings "$recipe"
raw="$1" bpe="$2" bin="${3%/}"
shift 3
workers="${WORKERS:-$(getconf _NPROCESSORS_ONLN)}"
read -ra splits <<< "${SPLITS:-train valid test}"
need_bpe "$bpe"
if [ -e "$bin" ] && [ ! -f "$bin/prepared.txt" ]; then
    fail "$bin exists and prepare.sh has not made it: name another folder, or remove it"
fi

folders=("$(absolute "$bpe")" "$(absolute "$raw")" "$(absolute "$bin.bpe")")
encoding=("$PYTHON" -m examples.summarization.encode "$recipe" "${folders[@]}" --splits "${splits[@]}" --workers "$workers")
(cd "$REPOSITORY" && "${encoding[@]}")  # there examples is ours, in a checkout of fairseq it is fairseq's

files=() inputs=("$bpe/dict.txt")
for split in "${splits[@]}"; do
    files+=("--${split}pref" "$bin.bpe/$split.bpe")
    inputs+=("$bin.bpe/$split.bpe.source" "$bin.bpe/$split.bpe.target")
done
dictionaries=(--srcdict "$bpe/dict.txt" --tgtdict "$bpe/dict.txt")
[ "$TEXTS" = gpt2 ] || dictionaries=(--srcdict "$bpe/dict.txt" --joined-dictionary)
command=(
    "$PYTHON" -m fairseq_switchdec preprocess "${LANGUAGES[@]}" "${files[@]}"
    "${dictionaries[@]}" --destdir "$bin.part" --workers "$workers" "$@"
)
if is_done "$bin/prepared.txt" "$FORM"$'\n'"${command[*]}" "${inputs[@]}"; then
    echo "$bin: done before, kept"
    exit
fi
rm -rf "$bin.part"  # what a killed run has left
"${command[@]}"
mark_done "$bin.part/prepared.txt" "$FORM"$'\n'"${command[*]}"
rm -rf "$bin"
mv "$bin.part" "$bin"
echo "$bin: ready for train.sh and generate.sh"

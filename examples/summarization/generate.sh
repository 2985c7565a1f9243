#!/usr/bin/env bash
# Generates the test set's summaries on each input's own path, with the recipe's beam settings.
#   bash examples/summarization/generate.sh RECIPE BIN BPE CHECKPOINT OUT [fairseq-generate's options]
#     RECIPE      cnndm, xsum, gpt2, t5 or llama
#     BIN         made by prepare.sh
#     BPE         the same folder as there
#     CHECKPOINT  such as SAVE/checkpoint_best.pt, or a released one (bart.large.cnn/model.pt)
#     OUT         gets generate-test.txt and report.json (what was skipped and saved)
#   SHARDS  processes that share the test set, each on a GPU of its own (default: 1)
#   SHARD   run only this one of them, from 0, as a task of an array job does; at the end, without it, the same command
#           joins what the tasks have written
# On a GPU add --fp16 (not for t5). What has finished is kept: after a kill, the same command does the rest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
usage 5 "$@"
recipe="$1"
settings "$recipe"
bin="$2" bpe="$3" checkpoint="$4" out="$5" shards="${SHARDS:-1}"
shift 5
need_prepared "$bin" "$recipe"
need "$bin/test.source-target.target.idx" "prepare.sh has not prepared the test set: run it with SPLITS naming test"
need_bpe "$bpe"
need "$checkpoint" "name a checkpoint of train.sh, such as SAVE/checkpoint_best.pt"

if [ "$TEXTS" = gpt2 ]; then  # --prefix-size 1: the target's first token, <s>, is given, as the hub interface does
    texts=(--prefix-size 1 --bpe gpt2 --gpt2-encoder-json "$bpe/encoder.json" --gpt2-vocab-bpe "$bpe/vocab.bpe")
else
    texts=(--bpe tokenizer_json --tokenizer-json "$bpe/tokenizer.json")
fi
command=(
    "$PYTHON" -m fairseq_switchdec generate "$bin" "${SWITCHABLE[@]}" "${LANGUAGES[@]}" --truncate-source
    --path "$checkpoint" --gen-subset test "${DECODING[@]}" "${texts[@]}" --batch-size 32 --scoring rouge
    --switch-report "$out/report.json" "$@"
)
mkdir -p "$out"
marker="$out/finished.txt"
inputs=("$checkpoint" "$bin/prepared.txt")

if [ "$shards" = 1 ]; then
    command+=(--results-path "$out")
    if is_done "$marker" "${command[*]}" "${inputs[@]}" && [ -f "$out/generate-test.txt" ] && [ -f "$out/report.json" ]; then
        echo "$out: done before, kept"
        exit
    fi
    rm -f "$marker"
    "${command[@]}"
    tail -n 1 "$out/generate-test.txt"
    mark_done "$marker" "${command[*]}"
    exit
fi

own="${SHARD:-}"
if [ -z "$own" ]; then
    IFS=, read -ra devices <<< "${CUDA_VISIBLE_DEVICES:-$(seq -s , 0 $((shards - 1)))}"
    [ "${#devices[@]}" -ge "$shards" ] || fail "SHARDS=$shards, but CUDA_VISIBLE_DEVICES names ${#devices[@]} GPUs"
elif [[ "$own" =~ ^[0-9]+$ ]] && [ "$own" -lt "$shards" ]; then
    devices[own]="${CUDA_VISIBLE_DEVICES:-0}"  # the job's own
else
    fail "SHARD=$own is none of the $shards shards: name one from 0 to $((shards - 1))"
fi
rm -f "$marker" "$out/report.json"  # evaluate.sh must not find the report of another run
folders=() running=() failed=()
trap 'kill "${running[@]}" 2> /dev/null; exit 130' INT TERM
for ((i = 0; i < shards; i++)); do
    folder="$out/shard-$i-of-$shards"
    folders+=("$folder")
    one=("${command[@]}" --num-shards "$shards" --shard-id "$i" --results-path "$folder")
    running+=("")
    [ -z "$own" ] || [ "$i" = "$own" ] || continue
    if is_done "$folder/finished.txt" "${one[*]}" "${inputs[@]}" && [ -f "$folder/generate-test.txt" ] &&
        [ -f "$out/report.shard-$i-of-$shards.json" ]; then
        echo "$folder: done before, kept"
        continue
    fi
    mkdir -p "$folder"
    rm -f "$folder/finished.txt"
    echo "$folder: on GPU ${devices[$i]}, its output in $folder/log.txt"
    (export CUDA_VISIBLE_DEVICES="${devices[$i]}"; exec "${one[@]}") > "$folder/log.txt" 2>&1 &
    running[i]=$!
done
for ((i = 0; i < shards; i++)); do
    [ -n "${running[$i]}" ] || continue
    if wait "${running[$i]}"; then
        one=("${command[@]}" --num-shards "$shards" --shard-id "$i" --results-path "${folders[$i]}")
        mark_done "${folders[$i]}/finished.txt" "${one[*]}"
    else
        failed+=("${folders[$i]}/log.txt")
    fi
done
[ "${#failed[@]}" = 0 ] || fail "not all was generated (see ${failed[*]}): the same command does the rest"
[ -z "$own" ] || exit 0
cat "${folders[@]/%//generate-test.txt}" > "$out/generate-test.txt.part"
mv "$out/generate-test.txt.part" "$out/generate-test.txt"
"$PYTHON" -m fairseq_switchdec report merge "$out/report.json" "$out"/report.shard-*-of-"$shards".json

#!/usr/bin/env bash
# Fine-tunes with learned decisions: BART (cnndm, xsum) with the paper's settings (section 4.2), GPT-2, T5 or a LLaMA;
# each flag is explained in README.md.
#   bash examples/summarization/train.sh RECIPE LAYOUT BIN START SAVE [fairseq-train's options]
#     RECIPE  cnndm, xsum, gpt2, t5 or llama
#     LAYOUT  [NODESx]GPUSxMEMORY, such as 8x32gb, 8x16gb, 1x32gb, 4x8x32gb; or cpu, to try a small model
#     BIN     made by prepare.sh
#     START   the checkpoint to fine-tune, such as bart.large/model.pt, or an imported model.pt
#     SAVE    folder for checkpoints
#   PRECISION  --fp16 or --amp, or "" for float32 (default: on a GPU --fp16; of t5 "")
#   Of several nodes, each runs it with NODE_RANK (0, 1, ...), MASTER_ADDR (node 0's) and MASTER_PORT (default: 29500).
# After a kill the same command goes on from SAVE/checkpoint_last.pt; to begin anew, name another SAVE.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
usage 5 "$@"
recipe="$1"
settings "$recipe"
layout="$2" bin="$3" start="$4" save="$5"
shift 5

# Each update sees 8 GPUs x 2048 tokens x 4 batches, whatever the layout.
update_tokens=$((8 * 2048 * 4)) max_tokens=2048
if [ "$layout" = cpu ]; then
    nodes=1 gpus=1 hardware=(--cpu)
elif [[ "$layout" =~ ^(([1-9][0-9]*)x)?([1-9][0-9]*)x(16|32)gb$ ]]; then
    nodes="${BASH_REMATCH[2]:-1}" gpus="${BASH_REMATCH[3]}" hardware=($HALF)
    [ "${BASH_REMATCH[4]}" = 32 ] || hardware+=(--checkpoint-activations)
else
    fail "unknown layout '$layout': [NODESx]GPUSxMEMORY with 16gb or 32gb, such as 8x32gb or 4x8x16gb; or cpu"
fi
processes=$((nodes * gpus))
if [ $((update_tokens % (processes * max_tokens))) != 0 ]; then
    fail "$layout is $processes GPUs, which cannot share 32 batches an update evenly: use 1, 2, 4, 8, 16 or 32"
fi

need_prepared "$bin" "$recipe"
[ -f "$save/checkpoint_last.pt" ] ||
    need "$start" "the checkpoint to start from; BART's are at https://dl.fbaipublicfiles.com/fairseq/models/bart.large.tar.gz, others are imported"

if [ "$nodes" = 1 ]; then
    launch=("$PYTHON" -m fairseq_switchdec train)
    hardware+=(--distributed-world-size "$gpus")  # of more GPUs in the machine, so many are used
else
    [ -n "${NODE_RANK:-}" ] && [ -n "${MASTER_ADDR:-}" ] ||
        fail "$layout: set NODE_RANK (0 to $((nodes - 1)), this node's) and MASTER_ADDR (the first node's host name)"
    launch=(
        "$PYTHON" -m torch.distributed.run --nnodes "$nodes" --nproc_per_node "$gpus" --node_rank "$NODE_RANK"
        --master_addr "$MASTER_ADDR" --master_port "${MASTER_PORT:-29500}" -m fairseq_switchdec train
    )
fi

data=("$bin" "${LANGUAGES[@]}" --truncate-source --skip-invalid-size-inputs-valid-test)
batches=(--max-tokens "$max_tokens" --update-freq $((update_tokens / (processes * max_tokens))))
batches+=(--required-batch-size-multiple 1)
model=("${SWITCHABLE[@]}" "${MODEL[@]}" --finetune-from-model "$start")
objective=(--criterion lexico_policy_criterion --label-smoothing "$SMOOTHING" "${POLICY[@]}")
optimizer=(--optimizer adam --adam-betas "(0.9, 0.999)" --adam-eps 1e-8 --weight-decay "$WEIGHT_DECAY" --clip-norm "$CLIP")
schedule=(--lr "$LR" --lr-scheduler polynomial_decay --warmup-updates 500)
schedule+=(--total-num-update 50000 --max-update 50000)
hardware+=(--find-unused-parameters)
saving=(--save-dir "$save" --save-interval-updates 1000 --keep-interval-updates 1 --no-epoch-checkpoints)
logging=(--log-format simple --log-interval 50 --seed 1)
exec "${launch[@]}" "${data[@]}" "${batches[@]}" "${model[@]}" "${objective[@]}" "${optimizer[@]}" "${schedule[@]}" \
    "${hardware[@]}" "${saving[@]}" "${logging[@]}" "$@"

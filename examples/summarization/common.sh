# Sourced by the scripts of this folder: what they check, and what distinguishes the recipes.
#   PYTHON  the interpreter that has fairseq_switchdec (default: python)

REPOSITORY="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
PYTHON="${PYTHON:-python}"
case "$PYTHON" in /*) ;; */*) PYTHON="$PWD/$PYTHON" ;; esac  # also where a command runs in another folder
LANGUAGES=(--source-lang source --target-lang target)
SWITCHABLE=(--user-dir fairseq_switchdec --task switchable_task)

# absolute PATH: the same from any folder.
absolute() {
    case "$1" in
        /*) echo "$1" ;;
        *) echo "$PWD/$1" ;;
    esac
}

fail() {
    echo "$(basename "$0" .sh): $*" >&2
    exit 1
}

# usage COUNT "$@": the script's header, where fewer than COUNT arguments are given.
usage() {
    local count="$1"
    shift
    if [ "$#" -lt "$count" ] || [ "$1" = --help ]; then
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
        exit 2
    fi
    "$PYTHON" -c "import fairseq_switchdec" 2> /dev/null ||
        fail "'$PYTHON' has no fairseq_switchdec: pip install . (see README), or set PYTHON to the interpreter that has it"
}

# need FILE WHERE: the file exists, else where the user gets it.
need() {
    [ -f "$1" ] || fail "no file $1: $2"
}

# need_bpe FOLDER: after `settings`, whose TEXTS says what the recipe's model reads texts with.
need_bpe() {
    local file
    if [ "$TEXTS" = tokenizer ]; then
        for file in tokenizer.json dict.txt; do
            need "$1/$file" "make $1 with: $PYTHON -m fairseq_switchdec import MODEL $1"
        done
        return
    fi
    for file in encoder.json vocab.bpe dict.txt; do
        need "$1/$file" "get it from https://dl.fbaipublicfiles.com/fairseq/gpt2_bpe/$file"
    done
}

# Only data that prepare.sh has made for the recipe: BART's begin with <s>, which generation is given.
# need_prepared BIN RECIPE
need_prepared() {
    need "$1/prepared.txt" "make $1 with prepare.sh, whose texts are as the recipe's model reads them"
    [ "$(head -n 1 "$1/prepared.txt")" = "$FORM" ] ||
        fail "prepare.sh has made $1 for another model, not for $FORM: make another folder, with prepare.sh $2"
}

# settings RECIPE: what distinguishes it; README.md says where the settings come from.
settings() {
    local bart=(--arch switchable_bart --share-all-embeddings --share-decoder-input-output-embed --layernorm-embedding)
    local long=(--beam 4 --lenpen 2.0 --max-len-b 140 --min-len 55 --no-repeat-ngram-size 3)
    FORM="$1" TEXTS=tokenizer HALF=--fp16 SMOOTHING=0.1 LR=3e-5 WEIGHT_DECAY=0.01 CLIP=0.1 BEAM=4 DECODING=("${long[@]}")
    case "$1" in
        cnndm) FORM=bart TEXTS=gpt2 MODEL=("${bart[@]}" --dropout 0.1 --attention-dropout 0.1) ;;
        xsum)
            FORM=bart TEXTS=gpt2 MODEL=("${bart[@]}" --dropout 0.1 --attention-dropout 0.1) BEAM=6
            DECODING=(--beam 6 --lenpen 1.0 --max-len-b 60 --min-len 10 --no-repeat-ngram-size 3)
            ;;
        gpt2)
            MODEL=(--arch switchable_gpt2 --dropout 0.1 --attention-dropout 0.1 --max-target-positions 160)
            SMOOTHING=0 LR=5e-5 CLIP=1.0
            ;;
        t5)
            MODEL=(--arch switchable_t5 --dropout 0.1 --attention-dropout 0.1 --max-source-positions 1024)
            MODEL+=(--max-target-positions 256)
            HALF="" SMOOTHING=0 LR=1e-4 CLIP=1.0
            DECODING=(--beam 4 --lenpen 2.0 --max-len-b 200 --min-len 30 --no-repeat-ngram-size 3)
            ;;
        llama)
            MODEL=(--arch switchable_llama --dropout 0 --max-source-positions 1024 --max-target-positions 256)
            SMOOTHING=0 LR=2e-5 WEIGHT_DECAY=0.1 CLIP=1.0
            ;;
        *) fail "unknown recipe '$1': cnndm, xsum, gpt2, t5 or llama" ;;
    esac
    POLICY=(--policy-lr 2e-4 --policy-cost-beam "$BEAM")  # the cost of a path depends on the beam
    HALF="${PRECISION-$HALF}"
}

# is_done MARKER WANTED INPUT...: the marker says that this very command has finished, and no input is newer.
is_done() {
    local marker="$1" wanted="$2" input
    shift 2
    [ -f "$marker" ] && [ "$(cat "$marker")" = "$wanted" ] || return 1
    for input in "$@"; do
        [ ! "$input" -nt "$marker" ] || return 1
    done
}

# mark_done MARKER WANTED: whole or not at all.
mark_done() {
    printf '%s\n' "$2" > "$1.part"
    mv "$1.part" "$1"
}

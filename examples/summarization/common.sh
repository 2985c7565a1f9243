# Sourced by the scripts of this folder: what they check, and what distinguishes CNN/DM from XSum.
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

need_bpe() {
    local file
    for file in encoder.json vocab.bpe dict.txt; do
        need "$1/$file" "get it from https://dl.fbaipublicfiles.com/fairseq/gpt2_bpe/$file"
    done
}

# Only data of prepare.sh: in other data a target may begin with a word of the summary, which generation would be given.
need_prepared() {
    need "$1/prepared.txt" "make $1 with prepare.sh, whose texts begin with <s> (fairseq's own recipe leaves it out)"
}

# settings DATASET: DECODING is BART's for it (examples/bart of fairseq); the cost of a path depends on the beam.
settings() {
    case "$1" in
        cnndm)
            DECODING=(--beam 4 --lenpen 2.0 --max-len-b 140 --min-len 55 --no-repeat-ngram-size 3)
            POLICY=(--policy-lr 2e-4 --policy-cost-beam 4)
            ;;
        xsum)
            DECODING=(--beam 6 --lenpen 1.0 --max-len-b 60 --min-len 10 --no-repeat-ngram-size 3)
            POLICY=(--policy-lr 2e-4 --policy-cost-beam 6)
            ;;
        *) fail "unknown data set '$1': cnndm or xsum" ;;
    esac
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

# Sourced by the scripts of this repository: makes the virtual environment they run in, and puts it first on PATH.
#   VENV    where it is, or is to be made (default: .venv in the repository)
#   PYTHON  the interpreter to make it with (default: python3); not used when it exists
# Usage: source examples/common/setup_venv.sh; setup_venv EXTRA...   (extras of setup.py; quick when there is nothing to do)

setup_venv() {
    local repository python stamp wanted
    repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
    VENV="${VENV:-$repository/.venv}"
    python="${PYTHON:-python3}"
    if [ ! -x "$VENV/bin/python" ]; then
        if ! command -v "$python" > /dev/null; then
            echo "setup_venv: no interpreter '$python'; set PYTHON to a Python >= 3.9" >&2
            return 1
        fi
        if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))'; then
            echo "setup_venv: '$python' is $("$python" -V 2>&1); set PYTHON to a Python >= 3.9" >&2
            return 1
        fi
        if ! "$python" -c 'import ensurepip, venv' 2> /dev/null; then
            echo "setup_venv: '$python' lacks the modules venv and ensurepip (Debian: apt install python3-venv)" >&2
            return 1
        fi
        echo "setup_venv: making $VENV with $("$python" -V)"
        "$python" -m venv "$VENV" || return 1
    fi
    # An install is repeated only when what it depends on has changed.
    stamp="$VENV/.fairseq_switchdec.$(IFS=-; echo "$*")"
    wanted="$repository $(cksum < "$repository/setup.py")"
    if [ "$(cat "$stamp" 2> /dev/null)" != "$wanted" ]; then
        echo "setup_venv: installing into $VENV (a few minutes the first time)"
        # pip 24.1 and newer refuse omegaconf 2.0.6, which fairseq 0.12.2 requires, for its metadata.
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "pip<24.1" || return 1
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
            --editable "$repository[$(IFS=,; echo "$*")]" || return 1
        echo "$wanted" > "$stamp"
    fi
    export VENV PATH="$VENV/bin:$PATH"
}

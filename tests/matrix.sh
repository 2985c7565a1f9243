#!/usr/bin/env bash
# Runs the tests on several Pythons, by hand: each gets an environment .venv-3.X of its own (the first time, torch and
# its CUDA packages are several GB each).
#   bash tests/matrix.sh [3.X ...]      default: 3.10 3.13
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The interpreter of a version: python3.X on PATH, or the newest that pyenv has installed.
find_python() {
    local found root
    # A pyenv shim is on PATH for versions that are installed but not selected, and fails.
    if found="$(command -v "python$1")" && "$found" -c '' 2> /dev/null; then
        echo "$found"
        return
    fi
    root="$(pyenv root 2> /dev/null || echo "$HOME/.pyenv")"
    found="$(ls -d "$root/versions/$1."*/bin/python 2> /dev/null | sort -V | tail -n 1)"
    [ -n "$found" ] && echo "$found"
}

[ $# -gt 0 ] || set -- 3.10 3.13
failed=()
for version in "$@"; do
    if ! python="$(find_python "$version")"; then
        echo "matrix: no python$version on PATH or among pyenv's versions; install it (pyenv install $version)" >&2
        failed+=("$version (not installed)")
        continue
    fi
    echo "matrix: Python $version, $python"
    VENV="$PWD/.venv-$version" PYTHON="$python" bash tests/run.sh -q || failed+=("$version")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "matrix: failed on ${failed[*]}" >&2
    exit 1
fi
echo "matrix: passed on $*"

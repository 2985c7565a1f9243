"""Docstring summarization: a corpus of real English that any install of this project already holds.

A pair is the body of a docstring (the source) and its one-line summary (the target). Docstrings are read with ``ast``
from the installed sources of torch, sympy, networkx, numpy and the standard library; nothing is imported or downloaded.

    python -m examples.quickstart.build_corpus OUT_DIR     writes {train,valid,test}.{source,target}, one pair a line

A pair's split is a hash of its summary: it is the same on every machine, and no text is in two splits.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..common.command_line import command_line
from ..common.files import SPLITS, write_lines
from .clean_text import NearDuplicates, letters, split_docstring

PACKAGES = ("torch", "sympy", "networkx", "numpy")
STDLIB = "python"
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}
DOC_CALLS = {"add_docstr", "add_newdoc"}  # how torch and numpy document what is written in C
TEST_PER_MILLE, VALID_PER_MILLE = 40, 32


class Pair(NamedTuple):
    source: str
    target: str
    package: str


def package_folders() -> dict[str, Path]:
    """Where the installed sources lie; a package that is not installed is left out."""
    folders = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)  # a top-level package is found without being imported
        if spec is not None and spec.submodule_search_locations:
            folders[name] = Path(next(iter(spec.submodule_search_locations)))
    folders[STDLIB] = Path(sysconfig.get_paths()["stdlib"])
    return folders


def python_files(folder: Path) -> list[Path]:
    """All Python files below ``folder``, tests left out, in an order that does not depend on the file system."""
    files = (path.relative_to(folder) for path in folder.rglob("*.py"))
    return [folder / path for path in sorted(files) if not SKIPPED_FOLDERS.intersection(path.parts)]


def docstrings(path: Path) -> list[str]:
    """The docstrings of one file; of a file that this Python cannot read, none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    texts = []
    for node in (tree, *_statements(tree.body)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            texts.append(ast.get_docstring(node) or "")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _name(node.value) in DOC_CALLS:
            texts.extend(_longest_literal(argument) for argument in node.value.args)
    return [text for text in texts if text]


def _name(call: ast.Call) -> str:
    """``f`` of both ``f(...)`` and ``module.f(...)``."""
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Every statement, at any depth; expressions, which hold no docstrings, are not walked."""
    for node in body:
        yield node
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)


def _longest_literal(argument: ast.expr) -> str:
    """The text of a documenting call's argument, also of ``"...".format(...)`` and of ``("name", "text")``."""
    constants = (node.value for node in ast.walk(argument) if isinstance(node, ast.Constant))
    return max((value for value in constants if isinstance(value, str)), key=len, default="").strip()


def collect(folders: dict[str, Path]) -> list[Pair]:
    """All distinct pairs of the given packages, in an order fixed by their texts."""
    pairs, duplicates = [], NearDuplicates()
    with ProcessPoolExecutor() as pool:  # parsing is nine tenths of the time
        for package, folder in folders.items():
            for texts in pool.map(docstrings, python_files(folder), chunksize=16):
                for pair in filter(None, map(split_docstring, texts)):
                    if not duplicates.seen(pair[0]):
                        pairs.append(Pair(*pair, package))
    return sorted(pairs, key=lambda pair: hashlib.sha256("\n".join(pair[:2]).encode()).digest())


def split_of(pair: Pair) -> str:
    """train, valid or test, by a hash of the summary's letters: equal summaries stay together."""
    place = int(hashlib.sha256(letters(pair.target).encode()).hexdigest()[:12], 16) % 1000
    return "test" if place < TEST_PER_MILLE else "valid" if place < TEST_PER_MILLE + VALID_PER_MILLE else "train"


def build(out_dir: Path, folders: dict[str, Path]) -> Counter[str]:
    """Write the corpus below ``out_dir``; returns the number of pairs by split and by package."""
    pairs = collect(folders)
    counts = Counter(pair.package for pair in pairs)
    for split in SPLITS:
        chosen = [pair for pair in pairs if split_of(pair) == split]
        write_lines(out_dir / f"{split}.source", (pair.source for pair in chosen))
        write_lines(out_dir / f"{split}.target", (pair.target for pair in chosen))
        counts[split] = len(chosen)
    return counts


def main() -> None:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("out_dir", type=Path, help="folder for {train,valid,test}.{source,target}")
    out_dir = parser.parse_args().out_dir
    folders = package_folders()
    counts = build(out_dir, folders)
    print("pairs by package: " + ", ".join(f"{name} {counts[name]:,}" for name in folders))
    print("pairs by split:   " + ", ".join(f"{split} {counts[split]:,}" for split in SPLITS))


if __name__ == "__main__":
    main()

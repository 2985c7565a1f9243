"""Makes the binary data of a GLUE task from GLUE's own tsv files, with the official GPT-2 BPE and dictionary.

    python -m examples.glue.prepare SST-2 glue_data/SST-2 --bpe-dir gpt2_bpe --out SST-2-bin

The layout is that of fairseq's recipe: ``input0/``, ``input1/`` and ``label/``, with splits train, valid (of MNLI also
valid1: mismatched) and test. The files may be gzipped, or JSON lines whose keys are the columns' names (.jsonl).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.glue.rows import BadRow, Row, read_rows
from fairseq_switchdec.glue.tasks import GLUE, STSB_SCALE, GlueTask, glue_task

from ..common.bpe import BPE_FILES, check_bpe
from ..common.command_line import command_line

SUFFIXES = (".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("task", help=f"one of {', '.join(GLUE)}")
    parser.add_argument("data", type=Path, help="folder of train.tsv, dev.tsv and test.tsv")
    parser.add_argument("--bpe-dir", type=Path, required=True, help=f"folder of {', '.join(BPE_FILES)}")
    parser.add_argument("--out", type=Path, help="folder to make; TASK-bin")
    parser.add_argument("--limit", type=int, help="take only this many rows of the training file")
    parser.add_argument("--strict", action="store_true", help="stop at a bad row instead of leaving it out")
    parser.add_argument("--workers", type=int, default=1, help="processes of fairseq-preprocess (%(default)s)")
    args = parser.parse_args(argv)
    glue_task("TASK", args.task)
    args.out = args.out or Path(f"{args.task}-bin")
    check_bpe("--bpe-dir", args.bpe_dir)
    if args.out.exists():
        raise UserError(f"--out {args.out} exists already: name another folder, or remove it first")
    return args


def split_files(data: Path, task: GlueTask) -> dict[str, Path]:
    """The files of the splits that are there, by fairseq's names for them."""
    tests = [name.replace("dev", "test") for name in task.dev]
    names = {"train": "train"}
    for kind, files in (("valid", task.dev), ("test", tests)):
        names |= {f"{kind}{number or ''}": name for number, name in enumerate(files)}
    found = {}
    for split, name in names.items():
        paths = [data / f"{name}{suffix}" for suffix in SUFFIXES if (data / f"{name}{suffix}").is_file()]
        if paths:
            found[split] = paths[0]
    if "train" not in found:
        raise UserError(f"{data} has no train.tsv (nor {', '.join('train' + s for s in SUFFIXES[1:])})")
    return found


def encode_split(path: Path, split: str, task: GlueTask, bpe: Any, folder: Path, args: argparse.Namespace) -> int:
    """Write a split's texts as BPE and its labels, one a line; bad rows are told and left out."""
    bad = 0
    texts = [(folder / f"{split}.input{number}").open("w", encoding="utf-8") for number in range(len(task.columns))]
    labels = (folder / f"{split}.label").open("w", encoding="utf-8")
    try:
        count = 0
        for row in tqdm(read_rows(str(path), task), desc=split, unit=" rows", mininterval=1):
            if isinstance(row, Row) and row.label is None and not split.startswith("test"):
                row = BadRow(row.line, row.index, f"there is no label (column {task.label!r})")
            if isinstance(row, BadRow):
                if args.strict:
                    raise UserError(f"{path}, line {row.line}: {row.reason}")
                bad += 1
                print(f"{path}, line {row.line}: {row.reason}; left out", file=sys.stderr)
                continue
            for file, text in zip(texts, row.texts):
                file.write(bpe.encode(text) + "\n")
            if row.label is not None:
                labels.write((row.label if task.labels else f"{float(row.label) / STSB_SCALE:.6g}") + "\n")
            count += 1
            if split == "train" and args.limit == count:
                break
    finally:
        for file in (*texts, labels):
            file.close()
    print(f"{split}: {count} rows of {path}" + (f", {bad} left out" if bad else ""))
    if not count:
        raise UserError(f"{path} holds no row that can be used")
    return count


def preprocess(folder: Path, part: str, splits: list[str], out: Path, *extra: str) -> None:
    """fairseq-preprocess of one part of the inputs."""
    from fairseq import options
    from fairseq_cli import preprocess

    words = ["--only-source", "--destdir", str(out), *extra]
    for kind in ("train", "valid", "test"):
        prefixes = [str(folder / f"{split}.{part}") for split in splits if split.rstrip("0123456789") == kind]
        if prefixes:
            words += [f"--{kind}pref", ",".join(prefixes)]
    before = list(preprocess.logger.handlers)
    try:
        preprocess.main(options.get_preprocessing_parser().parse_args(words))
    finally:  # fairseq leaves one for its log, in a folder that will be gone
        for handler in [handler for handler in preprocess.logger.handlers if handler not in before]:
            preprocess.logger.removeHandler(handler)
            handler.close()


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from fairseq.data import encoders

    task = GLUE[args.task]
    files = split_files(args.data, task)
    names = Namespace(
        bpe="gpt2",
        gpt2_encoder_json=str(args.bpe_dir / "encoder.json"),
        gpt2_vocab_bpe=str(args.bpe_dir / "vocab.bpe"),
    )
    bpe = encoders.build_bpe(names)
    workers = ("--workers", str(args.workers))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for split, path in files.items():
            encode_split(path, split, task, bpe, folder, args)
        made = folder / "bin"
        for number in range(len(task.columns)):
            part = f"input{number}"
            preprocess(folder, part, list(files), made / part, "--srcdict", str(args.bpe_dir / "dict.txt"), *workers)
        labelled = [split for split in files if not split.startswith("test")]
        if task.labels:
            # In the task's order, whatever their counts: the head's classes must not depend on the rows.
            (folder / "labels.txt").write_text("".join(f"{label} 1\n" for label in task.labels))
            preprocess(folder, "label", labelled, made / "label", "--srcdict", str(folder / "labels.txt"))
        else:
            (made / "label").mkdir()
            for split in labelled:
                (folder / f"{split}.label").rename(made / "label" / f"{split}.label")
        move(made, args.out)
    print(f"wrote {args.out}")


def move(source: Path, target: Path) -> None:
    """Put a finished folder in its place, also from another disk."""
    import shutil

    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(str(source), str(target))


if __name__ == "__main__":
    main()

"""Encodes texts: one text a line in, its ids out, line by line.

    python -m examples.summarization.encode RECIPE BPE RAW OUT [--splits train valid test] [--workers N]

RECIPE is one of train.sh's. For ``cnndm`` and ``xsum``, which are BART's, BPE holds GPT-2's encoder.json and vocab.bpe,
and ``<s>`` comes before the ids of a text (why: see README.md); for the others it is the folder of an imported model,
with its tokenizer.json. RAW has the files {train,valid,test}.{source,target} (``val`` does for ``valid``); OUT gets
SPLIT.bpe.source and SPLIT.bpe.target. An empty line stays a line (fairseq's encoder has ``--keep-empty`` for that), so
that sources and targets keep in step. A file whose output is newer than it is kept as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.pool import Pool
from pathlib import Path

from fairseq.data.encoders.gpt2_bpe_utils import get_encoder
from tqdm import tqdm

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.texts.tokenizer import TextTokenizer

from ..common.bpe import BPE_FILES
from ..common.command_line import command_line

BOS = "<s>"  # fairseq's dictionaries know it; as a word of a text it becomes ids of its letters
ORIGIN = "https://dl.fbaipublicfiles.com/fairseq/gpt2_bpe/"
NAMES = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}
SIDES = ("source", "target")
LINES_AT_ONCE = 4096  # bounds the memory that waiting texts take

#: What comes before a text, by recipe, of those that have a tokenizer.json: T5 is told its task in words, and what
#: continues a prompt begins with a space.
PREFIXES = {
    "gpt2": {"source": "", "target": " "},
    "llama": {"source": "", "target": " "},
    "t5": {"source": "summarize: ", "target": ""},
}
BART = ("cnndm", "xsum")

encode: Callable[[str], str]  # of a worker process


def start_worker(recipe: str, side: str, codes: list[str]) -> None:
    """Load the BPE once for each process."""
    global encode
    encode = bart_encoder(*codes) if recipe in BART else json_encoder(*codes, PREFIXES[recipe][side])


def bart_encoder(encoder_json: str, vocab_bpe: str) -> Callable[[str], str]:
    """``<s>`` and the ids of GPT-2's BPE."""
    bpe = get_encoder(encoder_json, vocab_bpe)
    return lambda text: " ".join([BOS, *map(str, bpe.encode(text))])


def json_encoder(path: str, prefix: str) -> Callable[[str], str]:
    """The ids of a prefix and a text; none of an empty one."""
    tokenizer = TextTokenizer(path)
    return lambda text: tokenizer.encode(prefix + text) if text else ""


def encode_line(line: str) -> str:
    """The ids of a text without the spaces around it."""
    return encode(line.strip())


def find(raw: Path, splits: list[str]) -> dict[str, list[Path]]:
    """The source and target file of every split.

    Raises:
        UserError: one is missing, or they have different numbers of lines.
    """
    found = {}
    for split in splits:
        names = [name for name in NAMES[split] if (raw / f"{name}.source").is_file()]
        pair = [raw / f"{(names or NAMES[split])[0]}.{side}" for side in SIDES]
        for path in pair:
            if not path.is_file():
                raise UserError(
                    f"no file {path}: RAW must hold {split}.source and {split}.target, one text a line, neither "
                    "tokenized nor lowercased (README.md says where CNN/DM and XSum come from)"
                )
        lengths = [count_lines(path) for path in pair]
        if lengths[0] != lengths[1]:
            raise UserError(f"{pair[0]} has {lengths[0]} lines, {pair[1]} {lengths[1]}: they must be in step")
        if lengths[0] == 0:
            raise UserError(f"{pair[0]} is empty: it must hold one text a line")
        found[split] = pair
    return found


def check_bpe(recipe: str, folder: Path) -> list[Path]:
    """The files that encode.

    Raises:
        UserError: one is missing.
    """
    if recipe not in BART:
        if not (folder / "tokenizer.json").is_file():
            raise UserError(
                f"no file {folder / 'tokenizer.json'}: make the folder with python -m fairseq_switchdec import"
            )
        return [folder / "tokenizer.json"]
    for name in BPE_FILES:
        if not (folder / name).is_file():
            raise UserError(f"no file {folder / name}: get it from {ORIGIN}{name}")
    return [folder / name for name in BPE_FILES[:2]]


def count_lines(path: Path) -> int:
    """Lines as `read` yields them.

    Raises:
        UserError: the text is not UTF-8.
    """
    with path.open(encoding="utf-8", newline="\n") as file:
        try:
            return sum(1 for _ in file)
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 ({error.reason}): convert it") from None


def read(path: Path) -> Iterator[list[str]]:
    """Some lines at a time, ended by newlines alone (not by the separators of Unicode)."""
    with path.open(encoding="utf-8", newline="\n") as file:
        while lines := list(islice(file, LINES_AT_ONCE)):
            yield lines


def encode_file(path: Path, out: Path, pool: Pool) -> tuple[int, int]:
    """Write ``out`` whole or not at all; returns the number of its lines, and how many of them are empty texts."""
    temporary = out.with_name(out.name + ".part")
    lines = empty = 0
    progress = tqdm(desc=out.name, total=count_lines(path), unit=" lines")
    with progress, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for texts in read(path):
            for line in pool.imap(encode_line, texts, chunksize=32):
                file.write(line + "\n")
                lines, empty = lines + 1, empty + (line in ("", BOS))
                progress.update()
    os.replace(temporary, out)
    return lines, empty


def is_current(out: Path, inputs: list[Path]) -> bool:
    """Whether ``out`` was made from these inputs as they are."""
    return out.is_file() and all(path.stat().st_mtime_ns < out.stat().st_mtime_ns for path in inputs)


def main() -> None:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("recipe", metavar="RECIPE", choices=(*BART, *PREFIXES))
    for name in ("bpe", "raw", "out"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    parser.add_argument("--splits", nargs="+", choices=tuple(NAMES), default=list(NAMES))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")
    args = parser.parse_args()
    if args.workers < 1:
        raise UserError(f"--workers {args.workers} must be 1 or more")
    codes = check_bpe(args.recipe, args.bpe)
    files = find(args.raw, args.splits)
    args.out.mkdir(parents=True, exist_ok=True)
    for side, name in enumerate(SIDES):
        with Pool(args.workers, start_worker, (args.recipe, name, list(map(str, codes)))) as pool:
            for split, pair in files.items():
                path, out = pair[side], args.out / f"{split}.bpe.{name}"
                if is_current(out, [path, *codes]):
                    print(f"{out}: done before, kept")
                    continue
                lines, empty = encode_file(path, out, pool)
                print(f"{out}: {lines:,} lines" + (f", {empty:,} of them empty texts" if empty else ""))


if __name__ == "__main__":
    main()

"""``python -m fairseq_switchdec encode``: lines of text to lines of ids, what ``fairseq-preprocess`` reads."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import UserError
from ..files import check_writable
from .tokenizer import FLAG, TextTokenizer, unescape

#: Lines, and bytes, of text that are encoded at once: bounds the memory, whatever the file's size.
LINES, BYTES = 4096, 4_000_000


def get_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description="Encode a text file, one text a line, with a tokenizer.json: the ids of each text on a line, for "
        "fairseq-preprocess. Nothing is added to a text, an empty one stays an empty line.",
    )
    parser.add_argument(FLAG, required=True, metavar="FILE", help="tokenizer.json of the model")
    parser.add_argument(
        "--escape", action="store_true", help=r"in a line \n stands for a newline of its text, \\ for a backslash"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="threads that encode (default: all cores)"
    )
    parser.add_argument("input", metavar="INPUT", help="text file, UTF-8")
    parser.add_argument("output", metavar="OUTPUT", help="file of ids to write; it appears only when complete")
    return parser


def cli_main() -> None:
    """Read the options, encode, say how much it was.

    Raises:
        UserError: a mistake in them, or a line that is no UTF-8.
    """
    args = get_parser().parse_args()
    if args.workers < 1:
        raise UserError(f"--workers {args.workers} must be 1 or more")
    # The library's threads; it reads these when it first encodes several texts.
    os.environ.update(RAYON_NUM_THREADS=str(args.workers), TOKENIZERS_PARALLELISM="true")
    check_writable("OUTPUT", args.output)
    with open_input(args.input) as source:
        if os.path.exists(args.output) and os.path.samefile(args.input, args.output):
            raise UserError(f"OUTPUT {args.output} is INPUT: name another file")
        lines, tokens = encode_file(source, TextTokenizer(args.tokenizer_json), args.output, args.escape)
    print(f"{args.output}: {lines:,} lines, {tokens:,} tokens")


def open_input(path: str) -> BinaryIO:
    """The file of texts.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"INPUT {path} cannot be read: {error.strerror}") from None


def encode_file(source: BinaryIO, tokenizer: TextTokenizer, output: str, escaped: bool) -> tuple[int, int]:
    """Write the ids of every line of an open file to ``output``, under another name until all are there.

    Returns:
        The number of lines, and of tokens.

    Raises:
        UserError: a line is no UTF-8, or the disk is full.
    """
    output = os.path.realpath(output)  # a link stays one
    temporary = Path(f"{output}.{os.getpid()}.tmp")
    lines = tokens = 0
    try:
        with temporary.open("w", encoding="ascii") as file, progress_bar(source) as bar:
            for texts, size in read_texts(source):
                encoded = tokenizer.encode_batch([unescape(text) for text in texts] if escaped else texts)
                file.writelines(f"{words}\n" for words in encoded)
                lines += len(encoded)
                tokens += sum(words.count(" ") + 1 for words in encoded if words)
                bar.update(size)
        os.replace(temporary, output)
    except OSError as error:
        raise UserError(f"OUTPUT {output} cannot be written: {error.strerror}. Name a file on another disk") from None
    finally:
        temporary.unlink(missing_ok=True)
    return lines, tokens


def read_texts(source: BinaryIO) -> Iterator[tuple[list[str], int]]:
    """Some lines at a time, ended by newlines alone (not by the separators of Unicode), and how many bytes they are.

    Raises:
        UserError: a line is no UTF-8.
    """
    texts: list[str] = []
    size = 0
    for number, line in enumerate(source, 1):
        try:
            texts.append(line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"INPUT {source.name}: line {number} is no UTF-8 text ({error.reason})") from None
        size += len(line)
        if len(texts) == LINES or size >= BYTES:
            yield texts, size
            texts, size = [], 0
    if texts:
        yield texts, size


def progress_bar(source: BinaryIO) -> Any:
    """A bar on a terminal's stderr, of the bytes read."""
    from tqdm import tqdm  # fairseq's own

    total = os.fstat(source.fileno()).st_size or None  # a pipe has none
    return tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None, file=sys.stderr)

"""Byte-level BPE in the file format of GPT-2, as fairseq's BART pipeline expects it (``--bpe gpt2``).

    python -m examples.quickstart.train_bpe train --size 8000 TEXT_FILE... BPE_DIR
        writes BPE_DIR/{encoder.json,vocab.bpe,dict.txt}
    python -m examples.quickstart.train_bpe encode BPE_DIR IN_DIR OUT_DIR
        turns {train,valid,test}.{source,target} into *.bpe.*

``encode`` writes the same ids as fairseq's ``multiprocessing_bpe_encoder``, with these files or the official ones.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from ..common.bpe import BPE_FILES
from ..common.command_line import command_line
from ..common.files import SPLITS, read_lines, write_lines, write_text

ENCODER, MERGES, DICTIONARY = BPE_FILES


def _tokenizer(model: BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)  # GPT-2's splitting rule
    return tokenizer


def train(text_files: list[Path], bpe_dir: Path, size: int) -> int:
    """Learn at most ``size`` symbols, the 256 bytes among them; returns how many there are.

    fairseq's dictionary lists them by their frequency in the text. Symbols that do not occur are in it too, as in the
    official one: an unknown symbol in a reference makes ``fairseq-generate --bpe gpt2`` fail.
    """
    lines = [line for path in text_files for line in read_lines(path)]
    tokenizer = _tokenizer(BPE())
    alphabet = ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary_file, merges_file = map(Path, tokenizer.model.save(folder))
        vocabulary = json.loads(vocabulary_file.read_text(encoding="utf-8"))
        merges = merges_file.read_text(encoding="utf-8")
    write_text(bpe_dir / ENCODER, json.dumps(vocabulary))
    write_text(bpe_dir / MERGES, merges)
    counts = Counter(dict.fromkeys(vocabulary.values(), 0))
    for encoding in load(bpe_dir).encode_batch(lines):
        counts.update(encoding.ids)
    entries = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    write_lines(bpe_dir / DICTIONARY, (f"{index} {count}" for index, count in entries))
    return len(vocabulary)


def load(bpe_dir: Path) -> Tokenizer:
    return _tokenizer(BPE.from_file(str(bpe_dir / ENCODER), str(bpe_dir / MERGES)))


def encode(bpe_dir: Path, in_dir: Path, out_dir: Path) -> None:
    """Write the ids of every {train,valid,test}.{source,target} as ``*.bpe.source`` and ``*.bpe.target``."""
    tokenizer = load(bpe_dir)
    for split in SPLITS:
        for side in ("source", "target"):
            encodings = tokenizer.encode_batch(read_lines(in_dir / f"{split}.{side}"), add_special_tokens=False)
            write_lines(out_dir / f"{split}.bpe.{side}", (" ".join(map(str, encoding.ids)) for encoding in encodings))


def main() -> None:
    parser = command_line(__doc__, __spec__.name)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("train", help="learn the symbols from text files")
    command.add_argument("--size", type=int, default=8000, help="number of symbols")
    command.add_argument("text_files", type=Path, nargs="+")
    command.add_argument("bpe_dir", type=Path)
    command = commands.add_parser("encode", help="turn text into ids")
    for name in ("bpe_dir", "in_dir", "out_dir"):
        command.add_argument(name, type=Path)
    args = parser.parse_args()
    if args.command == "train":
        print(f"{train(args.text_files, args.bpe_dir, args.size):,} symbols in {args.bpe_dir}")
    else:
        encode(args.bpe_dir, args.in_dir, args.out_dir)


if __name__ == "__main__":
    main()

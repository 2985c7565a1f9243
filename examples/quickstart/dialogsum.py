"""DialogSum (Chen et al., 2021) as {train,valid,test}.{source,target}, for ``quickstart --data``.

    python -m examples.quickstart.dialogsum SRC_DIR OUT_DIR
    python -m examples.quickstart.dialogsum SRC_DIR OUT_DIR --escape --tokenizer-json FILE --max-tokens 220

SRC_DIR holds dialogsum.{train,dev,test}.jsonl or the same with .gz. A dialogue's turns are joined by spaces, with
--escape by what ``pretrained --escape`` reads as newlines; of the test set's three summaries the first is the
reference.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.texts.tokenizer import TextTokenizer, escape

from ..common.command_line import command_line
from ..common.files import write_lines

SPLITS = {"train": "train", "valid": "dev", "test": "test"}


def read(folder: Path, name: str) -> list[dict[str, str]]:
    """The records of one split.

    Raises:
        UserError: the file is absent.
    """
    plain = folder / f"dialogsum.{name}.jsonl"
    packed = plain.with_name(plain.name + ".gz")
    if packed.is_file():
        text = gzip.decompress(packed.read_bytes()).decode("utf-8")
    elif plain.is_file():
        text = plain.read_text(encoding="utf-8")
    else:
        raise UserError(f"SRC_DIR {folder} holds neither {plain.name} nor {packed.name}")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def convert(
    source_folder: Path,
    out_folder: Path,
    lines: bool = False,
    tokenizer: TextTokenizer | None = None,
    max_tokens: int | None = None,
) -> dict[str, int]:
    """Write the six files; returns the number of pairs by split.

    Args:
        lines: keep newlines, as `escape` writes them.
        tokenizer, max_tokens: leave out dialogues that are longer than that.
    """
    counts = {}
    for split, name in SPLITS.items():
        records = read(source_folder, name)
        if tokenizer is not None and max_tokens is not None:
            texts = tokenizer.encode_batch([record["dialogue"] for record in records])
            records = [record for record, text in zip(records, texts) if len(text.split()) <= max_tokens]
        for column, key in (("source", "dialogue"), ("target", "summary1" if split == "test" else "summary")):
            texts = [record[key] for record in records]
            write_lines(out_folder / f"{split}.{column}", map(escape, texts) if lines else texts)
        counts[split] = len(records)
    return counts


def main() -> None:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("src_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--escape", action="store_true", help=r"write newlines as \n and backslashes as \\")
    parser.add_argument("--tokenizer-json", type=Path, help="of the model, to count tokens with")
    parser.add_argument("--max-tokens", type=int, help="leave out longer dialogues")
    args = parser.parse_args()
    if (args.tokenizer_json is None) != (args.max_tokens is None):
        parser.error("--tokenizer-json and --max-tokens go together")
    if args.max_tokens is not None and args.max_tokens < 1:
        parser.error(f"--max-tokens {args.max_tokens} must be 1 or more")
    tokenizer = None if args.tokenizer_json is None else TextTokenizer(str(args.tokenizer_json))
    counts = convert(args.src_dir, args.out_dir, args.escape, tokenizer, args.max_tokens)
    print(", ".join(f"{split} {count:,}" for split, count in counts.items()))


if __name__ == "__main__":
    main()

"""DialogSum (Chen et al., 2021) as {train,valid,test}.{source,target}, for ``quickstart --data``.

    python -m examples.quickstart.dialogsum SRC_DIR OUT_DIR

SRC_DIR holds dialogsum.{train,dev,test}.jsonl or the same with .gz. A dialogue's turns are joined by spaces; of the
test set's three summaries the first is the reference.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from fairseq_switchdec.errors import UserError

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


def convert(source_folder: Path, out_folder: Path) -> dict[str, int]:
    """Write the six files; returns the number of pairs by split."""
    counts = {}
    for split, name in SPLITS.items():
        records = read(source_folder, name)
        write_lines(out_folder / f"{split}.source", (record["dialogue"] for record in records))
        summary = "summary1" if split == "test" else "summary"
        write_lines(out_folder / f"{split}.target", (record[summary] for record in records))
        counts[split] = len(records)
    return counts


def main() -> None:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("src_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    args = parser.parse_args()
    counts = convert(args.src_dir, args.out_dir)
    print(", ".join(f"{split} {count:,}" for split, count in counts.items()))


if __name__ == "__main__":
    main()

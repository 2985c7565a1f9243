"""Makes a data folder for ``--task switchable_squad``: train.json and valid.json in SQuAD's format, the BPE's files.

    python -m examples.squad.prepare --train train-v1.1.json --valid dev-v1.1.json --bpe gpt2_bpe --out data

``--train`` takes several files, SQuAD's own or others of its format, and lists of ``{"context", "question", "answer"}``
which do not say where the answer stands: of these, questions whose answer stands in the context just once are taken.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.files import write_text

from ..common.bpe import BPE_FILES, check_bpe
from ..common.command_line import command_line


def main() -> None:
    """The command."""
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("--train", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--valid", type=Path, required=True, metavar="FILE")
    parser.add_argument("--valid-questions", type=int, metavar="N", help="take only the first N, spread over the file")
    parser.add_argument("--bpe", type=Path, required=True, metavar="DIR", help=f"folder of {', '.join(BPE_FILES)}")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    check_bpe("--bpe", args.bpe)
    for flag, path in (*(("--train", path) for path in args.train), ("--valid", args.valid)):
        if not path.is_file():
            raise UserError(f"{flag} {path} does not exist")
    args.out.mkdir(parents=True, exist_ok=True)
    articles = [article for path in args.train for article in articles_of(path)]
    write(args.out / "train.json", articles)
    valid = articles_of(args.valid)
    write(args.out / "valid.json", thinned(valid, args.valid_questions) if args.valid_questions else valid)
    for name in BPE_FILES:
        shutil.copyfile(args.bpe / name, args.out / name)


def articles_of(path: Path) -> list[Any]:
    """The articles of a file, made where it holds a list of questions."""
    data = path.read_bytes()
    content = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    if isinstance(content, dict):
        return content["data"]
    counts: Counter[str] = Counter()
    paragraphs: dict[str, list[Any]] = {}
    for number, row in enumerate(content):
        places = [match.start() for match in re.finditer(re.escape(row["answer"]), row["context"])]
        counts["taken" if len(places) == 1 else "answer absent" if not places else "answer ambiguous"] += 1
        if len(places) == 1 and row["answer"]:
            answer = {"text": row["answer"], "answer_start": places[0]}
            entry = {"id": f"{path.name}-{number}", "question": row["question"], "answers": [answer]}
            paragraphs.setdefault(row["context"], []).append(entry)
    print(f"{path.name}: {', '.join(f'{count} {kind}' for kind, count in counts.most_common())}")
    return [{"title": path.name, "paragraphs": [{"context": c, "qas": qas} for c, qas in paragraphs.items()]}]


def thinned(articles: list[Any], wanted: int) -> list[Any]:
    """Every n-th question, so that about ``wanted`` are left."""
    total = sum(len(paragraph["qas"]) for article in articles for paragraph in article["paragraphs"])
    every = max(total // wanted, 1)
    number = -1
    kept = []
    for article in articles:
        paragraphs = []
        for paragraph in article["paragraphs"]:
            qas = []
            for entry in paragraph["qas"]:
                number += 1
                if number % every == 0:
                    qas.append(entry)
            paragraphs.append({"context": paragraph["context"], "qas": qas})
        kept.append({"title": article.get("title", ""), "paragraphs": paragraphs})
    return kept


def write(path: Path, articles: list[Any]) -> None:
    """Write a split."""
    questions = sum(len(paragraph["qas"]) for article in articles for paragraph in article["paragraphs"])
    write_text(path, json.dumps({"data": articles}))
    print(f"{path}: {questions} questions")


if __name__ == "__main__":
    main()

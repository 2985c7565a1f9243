"""The recipes of question answering: their commands are understood, their data is what the task reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fairseq import options
from squad_support import make_document, write_bpe, write_json

from examples.squad import evaluate, from_scratch, prepare, train
from fairseq_switchdec import tasks  # noqa: F401  (registers)
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.predict.command import get_parser as predict_parser
from fairseq_switchdec.squad.command import get_parser as score_parser
from fairseq_switchdec.squad.examples import Problems, read_questions
from fairseq_switchdec.tasks.switchable_squad import SwitchableSquadTask


def parse_training(words: list[str]) -> Any:
    """As fairseq-train parses them."""
    return options.parse_args_and_arch(options.get_training_parser(), words)


@pytest.mark.parametrize("gpus", [1, 8])
@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_training_has_the_papers_settings(gpus: int, version: str) -> None:
    given = [version, "data", "--bart", "b.pt", "--save-dir", "out", "--gpus", str(gpus), "--seed", "5"]
    args = parse_training(train.command(*train.parse_args(given)))
    assert (args.max_update, args.warmup_updates, args.lr, args.batch_size) == (5430, 326, [1.5e-5], 3)
    assert args.batch_size * args.update_freq[0] * gpus == 3 * 8 * 2
    assert args.distributed_world_size == gpus and args.required_batch_size_multiple == 1
    assert args.squad_version == version and args.policy_decisions == "learned" and args.seed == 5
    plain = parse_training(train.command(*train.parse_args([*given, "--plain"])))
    assert plain.policy_decisions == "keep-all"
    differing = {name for name, value in vars(args).items() if vars(plain)[name] != value}
    assert differing == {"policy_decisions"} or differing == {"policy_decisions", "policy_lr"}


def test_gpus_that_cannot_share_an_update_are_refused() -> None:
    args = train.parse_args(["1.1", "data", "--bart", "b.pt", "--save-dir", "out", "--gpus", "5"])
    with pytest.raises(UserError, match="--batch-size 3 on --gpus 5 cannot make updates of 48 inputs"):
        train.command(*args)


def test_evaluation_is_understood(tmp_path: Path) -> None:
    args, extra = evaluate.parse_args(["m.pt", "dev.json", "--out", str(tmp_path), "--cpu", "--squad-n-best", "5"])
    predict, score = evaluate.commands(args, "greedy", extra)
    parsed = predict_parser(SwitchableSquadTask).parse_args(predict[1:])
    assert parsed.cpu and parsed.squad_n_best == 5 and parsed.switch_decisions == "greedy"
    scored = score_parser().parse_args(score[1:])
    assert scored.n_best == parsed.output and scored.null_threshold == "tune"


def test_the_run_from_scratch_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[str]] = {}

    class Recorder:
        out = tmp_path

        def run(self, name: str, command: list[Any], **rest: Any) -> None:
            seen[name] = [str(word) for word in command]

    from_scratch.train(
        Recorder(), tmp_path / "data", "base", 40, 1e-3, ["--policy-decisions", "keep-all"], after="prepare"
    )
    args = parse_training(seen["base"][4:])
    assert args.max_update == 40 and args.warmup_updates == 4 and args.task == "switchable_squad"


def test_preparation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"context": "It is red.", "question": "What?", "answer": "red"},
        {"context": "red or red", "question": "What?", "answer": "red"},
        {"context": "It is red.", "question": "It?", "answer": "It"},
        {"context": "It is red.", "question": "It?", "answer": "blue"},
    ]
    lines = write_json(tmp_path / "rows.json.gz", rows)
    document = write_json(tmp_path / "d.json", make_document(5))
    bpe, out = write_bpe(tmp_path / "bpe"), tmp_path / "out"
    words = ["--train", lines, document, "--valid", document, "--valid-questions", "5", "--bpe", bpe, "--out", out]
    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, words)])
    prepare.main()
    path = str(out / "train.json")
    questions = list(read_questions(path, Problems(path, strict=True)))
    assert len(questions) == 2 + 10 and all(question.trainable for question in questions)
    valid = json.loads((out / "valid.json").read_text())
    assert sum(len(p["qas"]) for article in valid["data"] for p in article["paragraphs"]) == 5
    assert {path.name for path in out.iterdir()} == {
        "train.json",
        "valid.json",
        "dict.txt",
        "encoder.json",
        "vocab.bpe",
    }

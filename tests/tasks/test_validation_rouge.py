"""``--eval-rouge``: its figures in validation, over batches and processes, and what it refuses."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from fairseq.logging import metrics
from support import DATA_FLAGS, POLICY_FLAGS, SWITCHABLE_FLAGS, architecture, run_command, train_flags

from fairseq_switchdec.config import RunOptions
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.scoring.outputs import parse_generated
from fairseq_switchdec.scoring.rouge import MEASURES, rouge_scores
from fairseq_switchdec.tasks.validation_rouge import ValidationRouge, log_rouge

# Ten different words, so that even an untrained model finds some of the reference's.
DECODING = {"beam": 2, "min_len": 10, "max_len_b": 10, "no_repeat_ngram_size": 1}
ROUGE_FLAGS = ("--eval-rouge", "--eval-rouge-args", json.dumps(DECODING), "--eval-rouge-print-samples")


class Task:
    """As much of a task as validation needs: it generates the second token of each row's source, twice."""

    def __init__(self, dictionary: Any):
        self.target_dictionary = dictionary

    def build_generator(self, models: Any, args: Any) -> Any:
        return SimpleNamespace(args=args)

    def inference_step(self, generator: Any, models: Any, sample: dict[str, Any]) -> Any:
        rows = sample["net_input"]["src_tokens"][:, [1, 1]].tolist()
        return [[{"tokens": torch.tensor([*row, 2])}, {"tokens": torch.tensor([2])}] for row in rows]


def options(**changes: Any) -> Any:
    defaults = {name: value for name, value in vars(RunOptions()).items() if name.startswith("eval_rouge")}
    return SimpleNamespace(**{**defaults, **changes})


def test_means_over_batches_and_processes(dictionary):
    """Batches of 1 and 3 pairs weigh as their pairs do, whether logged together (two processes) or in turn."""
    source = torch.tensor([[0, 10, 2], [0, 11, 2], [0, 12, 2], [0, 13, 2]])
    target = torch.tensor([[10, 10, 2, 1], [20, 11, 2, 1], [12, 30, 31, 2], [40, 2, 1, 1]])
    score = ValidationRouge(Task(dictionary), None, options())
    logs = [score({"net_input": {"src_tokens": source[rows]}, "target": target[rows]}) for rows in ([0], [1, 2, 3])]
    words = [dictionary.string(row[row != dictionary.pad()]) for row in target]
    expected = rouge_scores(words, [dictionary.string(torch.tensor([i, i])) for i in (10, 11, 12, 13)]).mean(axis=0)
    assert expected[0] == pytest.approx((100 + 50 + 40 + 0) / 4)
    for groups in ([logs], [[log] for log in logs]):
        with metrics.aggregate(new_root=True) as meters:
            for group in groups:
                log_rouge(group)
            log_rouge([{"loss": 1.0}])  # of a process whose batch was a dummy
        np.testing.assert_allclose([meters[name].avg for name in MEASURES], expected)
        assert [meters.get_smoothed_values()[name] for name in MEASURES] == np.round(expected, 2).tolist()


def test_unknown_words_match_nothing(dictionary):
    """An unknown word of the reference is written apart from one of the hypothesis."""
    score = ValidationRouge(Task(dictionary), None, options())
    found = score({"net_input": {"src_tokens": torch.tensor([[0, 3, 2]])}, "target": torch.tensor([[3, 3, 2]])})
    assert found == {"_rouge1_sum": 0, "_rouge2_sum": 0, "_rougeL_sum": 0, "_rouge_pairs": 1}


def test_official_bpe_is_decoded(shared_data):
    folder = shared_data / "tokenizer" / "gpt2_bpe"
    files = {"gpt2_encoder_json": str(folder / "encoder.json"), "gpt2_vocab_bpe": str(folder / "vocab.bpe")}
    flags = options(eval_rouge_bpe="gpt2", eval_rouge_bpe_args=json.dumps(files))
    numbers = Dictionary()
    ids = numbers.encode_line("15496 995 0")
    assert ValidationRouge(Task(numbers), None, flags).decode(ids) == "Hello world!"


def test_numbers_are_suspected(caplog):
    numbers = Dictionary()
    ids = numbers.encode_line("31414 232 328").unsqueeze(0)
    ValidationRouge(Task(numbers), None, options())({"net_input": {"src_tokens": ids}, "target": ids})
    assert "add --eval-rouge-bpe gpt2" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_rouge_args": "{beam: 4}"}, "--eval-rouge-args {beam: 4}: not JSON"),
        ({"eval_rouge_args": "4"}, "--eval-rouge-args 4: not a JSON object"),
        ({"eval_rouge_args": '{"max_len": 4}'}, "--eval-rouge-args: 'max_len' is no generation option"),
        ({"eval_rouge_bpe": "gtp2"}, "fairseq has no 'gtp2'"),
        (
            {"eval_rouge_bpe": "gpt2", "eval_rouge_bpe_args": '{"gpt2_encoder_json": "no/file"}'},
            "--eval-rouge-bpe gpt2 cannot be set up",
        ),
    ],
    ids=["json", "object", "option", "bpe", "file"],
)
def test_mistakes(dictionary, changes, message):
    with pytest.raises(UserError, match=message):
        ValidationRouge(Task(dictionary), None, options(**changes))


def test_training_keeps_the_best_checkpoint_and_validation_repeats_its_figures(corpus, tmp_path):
    """fairseq-train chooses by rougeL; fairseq-generate with the same options gives the figures it logged."""
    log = run_command(
        "train", corpus, *SWITCHABLE_FLAGS, *architecture("switchable_bart_base"), *POLICY_FLAGS,
        *train_flags(tmp_path, 8, "--validate-interval-updates", 4, "--save-interval-updates", 4, *ROUGE_FLAGS),
        "--best-checkpoint-metric", "rougeL", "--maximize-best-checkpoint-metric",
    ).stdout  # fmt: skip
    valid = [json.loads(line) for line in re.findall(r"\| valid \| (\{.*\})", log)]
    scores = [[float(record[f"valid_{measure}"]) for measure in MEASURES] for record in valid]
    best = [row for row in scores if row[2] == max(other[2] for other in scores)][-1]
    assert len(scores) >= 2 and best[0] > 0
    assert float(valid[-1]["valid_best_rougeL"]) == best[2]
    assert "example hypothesis: w" in log
    decoding = [word for name, value in DECODING.items() for word in (f"--{name.replace('_', '-')}", value)]
    output = run_command(
        "generate", corpus, *DATA_FLAGS, *SWITCHABLE_FLAGS, "--path", tmp_path / "checkpoint_best.pt", "--gen-subset",
        "valid", "--cpu", *decoding, "--batch-size", 7,
    ).stdout  # fmt: skip
    found = parse_generated(output.split("\n"))
    ids = sorted(found.references)
    means = rouge_scores([found.references[i] for i in ids], [found.hypotheses[i] for i in ids]).mean(axis=0)
    np.testing.assert_allclose(means, best, atol=0.006)

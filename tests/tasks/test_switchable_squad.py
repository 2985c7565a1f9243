"""``--task switchable_squad`` through the real command lines, and the model's span head."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils
from squad_support import make_document, write_bpe, write_json
from support import POLICY_FLAGS, architecture, build_switchable, model_args, run_command
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from fairseq_switchdec import tasks  # noqa: F401  (registers)
from fairseq_switchdec.config import LexicoPolicyCriterionConfig, SwitchableSquadConfig
from fairseq_switchdec.cost import Keep, flops
from fairseq_switchdec.criterions.span import SpanObjective, context_places, span_scores
from fairseq_switchdec.decisions import Decisions
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.models.bart.model import switchable_bart_base
from fairseq_switchdec.predict import command
from fairseq_switchdec.squad.dataset import SpanDataset
from fairseq_switchdec.tasks.switchable_squad import SwitchableSquadTask

WINDOW = ["--squad-window", 48, "--squad-stride", 12, "--squad-question", 20]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_bpe(tmp_path_factory.mktemp("squad"))
    write_json(folder / "train.json", make_document(30, seed=2, impossible=True))
    write_json(folder / "valid.json.gz", make_document(6, seed=3, impossible=True))
    return folder


@pytest.fixture(scope="module")
def task(data: Path) -> SwitchableSquadTask:
    cfg = SwitchableSquadConfig(data=str(data), squad_window=48, squad_stride=12, squad_question=20)
    return SwitchableSquadTask.setup_task(cfg)


@pytest.fixture(scope="module")
def model(task: SwitchableSquadTask) -> Any:
    made = build_switchable(task.dictionary, max_target_positions=64)
    made.register_span_head()
    torch.manual_seed(5)
    for weight in made.parameters():  # outputs that differ between inputs
        torch.nn.init.normal_(weight, std=0.3)
    return made.eval()


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("trained")
    result = run_command(
        "train", data, "--user-dir", "fairseq_switchdec", "--task", "switchable_squad", *WINDOW,
        *architecture("switchable_bart_base"), "--share-all-embeddings", *POLICY_FLAGS, "--save-dir", folder,
        "--max-source-positions", 64, "--max-target-positions", 64, "--max-update", 12, "--batch-size", 8,
        "--optimizer", "adam", "--lr", 3e-3, "--cpu", "--num-workers", 0, "--no-epoch-checkpoints",
        "--best-checkpoint-metric", "f1", "--maximize-best-checkpoint-metric", "--log-format", "json",
    )  # fmt: skip
    return SimpleNamespace(path=folder / "checkpoint_best.pt", log=result.stdout, data=data)


def batch(task: SwitchableSquadTask, split: str = "valid", count: int = 5) -> dict[str, Any]:
    task.load_dataset(split)
    dataset = task.dataset(split)
    return dataset.collater([dataset[index] for index in range(count)])


def test_batches_hold_what_the_file_says(task: SwitchableSquadTask) -> None:
    sample = batch(task)
    tokens, eos = sample["net_input"]["src_tokens"], task.dictionary.eos()
    assert [len(one.windows) for one in sample["questions"]].count(1) < 5  # there are contexts of several windows
    assert len(tokens) == sum(len(one.windows) for one in sample["questions"]) == sample["nsentences"]
    assert tokens.size(1) <= 48
    assert torch.equal(sample["context"], context_places(tokens, sample["net_input"]["src_lengths"], eos))
    back = {task.dictionary.index(str(number)): token for token, number in task.bpe().bpe.encoder.items()}
    row = 0
    answered = 0
    for one in sample["questions"]:
        for _ in one.windows:
            first, last = sample["spans"][row].tolist()
            if first:
                text = "".join(back[token] for token in tokens[row, first : last + 1].tolist())
                assert text.lstrip("Ġ") == one.question.answers[0].text
                answered += 1
            row += 1
    assert answered and answered < row
    assert sample["net_input"]["prev_output_tokens"][0, 0] == eos
    assert torch.equal(sample["net_input"]["prev_output_tokens"][0, 1:3], tokens[0, :2])


def test_training_shows_one_window_at_a_time_and_all_of_them(task: SwitchableSquadTask) -> None:
    task.load_dataset("train")
    dataset: SpanDataset = task.dataset("train")
    seen = dataset.collater([dataset[index] for index in range(len(dataset))])
    assert seen["id"].tolist() == list(range(len(dataset))) and "questions" not in seen
    assert sorted(dataset.ordered_indices().tolist()) == list(range(len(dataset)))
    sizes = [dataset.size(index) for index in dataset.ordered_indices()]
    assert sizes == sorted(sizes) and sizes[-1] == int(seen["net_input"]["src_lengths"].max())


def test_scores_of_a_batch_are_those_of_its_windows_alone(task: SwitchableSquadTask, model: Any) -> None:
    sample = batch(task)
    together = span_scores(model, sample, model.encoder.space.keep_all(sample["nsentences"])).scores
    for row in range(sample["nsentences"]):
        length = int(sample["net_input"]["src_lengths"][row])
        alone = {
            "net_input": {
                name: value[row : row + 1, :length] if value.dim() == 2 else value[row : row + 1]
                for name, value in sample["net_input"].items()
            },
            "context": sample["context"][row : row + 1],
        }
        one = span_scores(model, alone, model.encoder.space.keep_all(1)).scores[0]
        assert_close(together[row, :length], one)
        begin, end = sample["context"][row].tolist()
        closed = [place for place in range(length) if place != 0 and not begin <= place < end]
        assert torch.isinf(one[closed]).all() and torch.isfinite(one[begin:end]).all()
        assert_close(one.exp().sum(0), torch.ones(2))


def test_a_token_is_scored_by_the_state_that_has_just_read_it(task: SwitchableSquadTask, model: Any) -> None:
    """Causal attention: scores of a token change with it and not with what comes after, the encoder's part aside."""
    sample = batch(task, count=1)
    decisions = model.encoder.space.keep_all(sample["nsentences"])
    before = span_scores(model, sample, decisions).scores
    place = int(sample["context"][0, 0]) + 3
    read = sample["net_input"]["prev_output_tokens"][0, place + 1].item()  # one late
    assert read == sample["net_input"]["src_tokens"][0, place]
    sample["net_input"]["prev_output_tokens"][0, place + 1] = read + 1
    after = span_scores(model, sample, decisions).scores
    begin = int(sample["context"][0, 0])
    changes = (before - after)[0, begin : place + 1, 0]  # the normalization moves all scores alike
    assert_close(changes[:-1], changes[:1].expand(len(changes) - 1))
    assert abs(changes[-1] - changes[0]) > 1e-4


def test_loss_by_hand_and_cost_as_counted(task: SwitchableSquadTask, model: Any) -> None:
    sample = batch(task)
    objective = SpanObjective(LexicoPolicyCriterionConfig())
    space, size = model.encoder.space, sample["nsentences"]
    keep = torch.rand(size, space.num_sublayers, generator=torch.Generator().manual_seed(1)) < 0.6
    decisions = space.decisions(keep | ~space.open_sublayers(), torch.arange(size) % 7)
    loss = objective.loss(model, sample, decisions)
    scores = span_scores(model, sample, decisions).scores
    expected = [-(scores[r, s, 0] + scores[r, e, 1]) / 2 for r, (s, e) in enumerate(sample["spans"].tolist())]
    assert_close(loss.quality, torch.stack(expected).detach())
    assert_close(loss.total, torch.stack(expected).sum())
    assert objective.weight(sample) == size and loss.weight.tolist() == [1] * size
    one = {
        "net_input": {
            "src_tokens": sample["net_input"]["src_tokens"][:1, : int(sample["net_input"]["src_lengths"][0])],
            "src_lengths": sample["net_input"]["src_lengths"][:1],
        },
        "context": sample["context"][:1],
        "spans": sample["spans"][:1],
    }
    one["net_input"]["prev_output_tokens"] = one["net_input"]["src_tokens"].roll(1, 1)
    path = Decisions(*(tensor[:1] for tensor in decisions.tensors()))
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        objective.loss(model, one, path)
    lengths = objective.lengths(model, one)
    assert flops(objective.geometry(model), Keep.of(path, lengths), lengths).tolist() == [counter.get_total_flops()]


def test_every_word_keeps_a_state(task: SwitchableSquadTask, model: Any) -> None:
    """Half of the encoder's tokens dropped: there is still a score for each."""
    sample = batch(task)
    space = model.encoder.space
    keep, _ = space.flat(space.keep_all(sample["nsentences"]))
    dropped = space.decisions(keep, torch.full((sample["nsentences"],), 6))
    scores = span_scores(model, sample, dropped).scores
    for row, (begin, end) in enumerate(sample["context"].tolist()):
        assert torch.isfinite(scores[row, begin:end]).all()


def test_training_validates_by_exact_match_and_f1(trained: SimpleNamespace) -> None:
    lines = [json.loads(line[line.index("{") :]) for line in trained.log.splitlines() if "| valid | {" in line]
    assert lines and all(0 <= float(line["valid_em"]) <= float(line["valid_f1"]) <= 100 for line in lines)
    assert {"valid_keep_all_em", "valid_keep_all_f1", "valid_cost"} <= set(lines[-1])
    assert "policy_weight_cost" in trained.log
    state = checkpoint_utils.load_checkpoint_to_cpu(str(trained.path))["model"]
    assert state["span_head.weight"].shape == (2, 24)


def test_validation_and_prediction_agree(trained: SimpleNamespace, tmp_path: Path) -> None:
    """Windows, batches and decisions of their own: the same exact match and F1."""
    validated = run_command(
        "validate", trained.data, "--user-dir", "fairseq_switchdec", "--task", "switchable_squad", "--path",
        trained.path, "--cpu", "--batch-size", 3, "--num-workers", 0, "--log-format", "json",
    ).stdout  # fmt: skip
    figures = next(json.loads(line[line.index("{") :]) for line in validated.splitlines() if "| valid | {" in line)
    out, report = tmp_path / "out.jsonl", tmp_path / "report.json"
    gold = trained.data / "valid.json.gz"
    common = ["--task", "switchable_squad", "--path", trained.path, "--cpu", "--output", out]
    run_command("predict", *common, "--input", gold, "--switch-report", report, "--batch-size", 5)
    run_command("squad-score", "--data", gold, "--predictions", out, "--json", tmp_path / "score.json")
    score = json.loads((tmp_path / "score.json").read_text())
    assert score["version"] == "2.0" and score["total"] == 18
    assert float(figures["valid_em"]) == pytest.approx(score["exact"], abs=1e-3)
    assert float(figures["valid_f1"]) == pytest.approx(score["f1"], abs=1e-3)
    cost = json.loads(report.read_text())
    assert cost["cost"] == pytest.approx(float(figures["valid_cost"]), abs=1e-4) and cost["inputs"] > 18


def test_a_checkpoint_without_a_span_head_is_refused(
    trained: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = checkpoint_utils.load_checkpoint_to_cpu(str(trained.path))
    for name in [name for name in state["model"] if name.startswith("span_head.")]:
        del state["model"][name]
    torch.save(state, tmp_path / "headless.pt")
    words = ["predict", "--task", "switchable_squad", "--path", tmp_path / "headless.pt", "--cpu"]
    words += ["--input", trained.data / "valid.json.gz", "--output", tmp_path / "out.jsonl"]
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    with pytest.raises(UserError, match="headless.pt has no span head: name a model trained with"):
        command.cli_main()


def test_bad_rows_are_told_and_the_rest_is_predicted(trained: SimpleNamespace, tmp_path: Path) -> None:
    rows: list[Any] = [
        {"id": "good", "question": "What is the house?", "context": 'The house is "red".'},
        {"id": "empty", "question": "What?", "context": ""},
        {"id": "none", "context": "x"},
        {"id": "outside", "question": "?", "context": "It is.", "answers": [{"text": "no", "answer_start": 1}]},
        {"id": "long", "question": "What is the tree? " * 30, "context": "The tree is green."},
        {"id": "words", "question": "What?", "context": "is the an " * 2000},
    ]
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    lines = [json.dumps(row) for row in rows]
    source.write_text("\n".join([lines[0], lines[0][:-5], *lines[1:]]))
    command = ["--task", "switchable_squad", "--path", trained.path, "--cpu", "--input", source]
    told = run_command("predict", *command, "--output", out).stdout
    made = [json.loads(line) for line in out.read_text().splitlines()]
    assert [entry["id"] for entry in made] == [
        "good",
        "line 2",
        "empty",
        "line 4 (id none)",
        "outside",
        "long",
        "words",
    ]
    assert ["error" in entry for entry in made] == [False, True, False, True, False, False, False]
    assert made[2]["text"] == "" and made[6]["end"] > 0
    for words in ("line 2", "line 3 (id empty)", "line 4", "line 5 (id outside)", "line 6 (id long)"):
        assert f"rows.jsonl: {words}" in told or f"rows.jsonl, {words}" in told, words
    assert "2 of them could not be predicted" in told
    for entry in made:
        if entry.get("text"):
            context = next(row["context"] for row in rows if row["id"] == entry["id"])
            assert context[entry["start"] : entry["end"]] == entry["text"]
    strict = run_command("predict", *command, "--output", tmp_path / "no.jsonl", "--strict", check=False)
    assert strict.returncode == 1 and "--strict" in strict.stdout and "rows.jsonl, line" in strict.stdout
    assert not list(tmp_path.glob("no.jsonl*"))


def test_export_leaves_the_span_head_out(trained: SimpleNamespace, tmp_path: Path) -> None:
    told = run_command("export", trained.path, tmp_path / "plain.pt").stdout
    assert "the span head is left out" in told
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "plain.pt"))["model"]
    assert not [name for name in state if "span_head" in name or "policy" in name]


def test_a_span_head_is_left_out_where_none_is_wanted(
    task: SwitchableSquadTask, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    plain = build_switchable(task.dictionary, max_target_positions=64)
    with caplog.at_level(logging.INFO):
        plain.load_state_dict(dict(state), strict=True)
    assert "span_head.weight is left out" in caplog.text
    with_head = build_switchable(task.dictionary, max_target_positions=64)
    with_head.register_span_head()
    with_head.load_state_dict({n: v for n, v in state.items() if "span_head" not in n}, strict=True)
    with_head.load_state_dict(state, strict=True)
    assert torch.equal(with_head.span_head.weight, model.span_head.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"squad_version": "3"}, "--squad-version"),
        ({"squad_n_best": 0}, "--squad-n-best"),
        ({"squad_window": 40, "squad_stride": 30}, "--squad-window 40"),
        ({"data": "/absent"}, "dict.txt"),
    ],
)
def test_options_that_cannot_be_meant(data: Path, changes: dict[str, Any], message: str) -> None:
    options = {"data": str(data), "squad_window": 48, "squad_stride": 12, "squad_question": 20, **changes}
    with pytest.raises(UserError, match=message):
        SwitchableSquadTask.setup_task(SwitchableSquadConfig(**options))


def test_data_that_cannot_be_learned_from(data: Path, tmp_path: Path) -> None:
    write_bpe(tmp_path)
    made = SwitchableSquadTask.setup_task(SwitchableSquadConfig(data=str(tmp_path)))
    with pytest.raises(UserError, match="has no train.json"):
        made.load_dataset("train")
    document = {"data": [{"paragraphs": [{"context": "x", "qas": [{"id": "a", "question": "?"}]}]}]}
    write_json(tmp_path / "train.json", document)
    with pytest.raises(UserError, match="no question with an answer"):
        made.load_dataset("train")
    with pytest.raises(UserError, match="exceeds the model's 64 positions"):
        args = model_args(max_target_positions=64, arch="switchable_bart_base", _name="switchable_bart_base")
        switchable_bart_base(args)
        made.build_model(args)

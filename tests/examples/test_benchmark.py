"""The benchmark: its decisions and options, its arithmetic by hand, its check, and a tiny run of everything."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gguf_files import write_gguf
from hugging_face.support import tiny_folder
from support import REPO

from examples.benchmark import (
    bookkeeping,
    check,
    decisions,
    generation,
    processes,
    report,
    texts,
    training,
    training_worker,
)
from examples.benchmark import setup as orders
from examples.benchmark.__main__ import main
from examples.benchmark.options import parse
from examples.benchmark.report import Case
from examples.benchmark.setup import Lane
from examples.benchmark.systems.interface import load
from fairseq_switchdec.compat.imports import installed_version
from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.errors import UserError

#: Sizes of a LLaMA that a GGUF file can hold.
TINY = dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
SMALL = "--geometry tiny --src-len 24 --out-len 3 --beam 2 --threads 1 --device cpu".split()


def setup_in(folder: Path, system: str = "stock") -> Any:
    options = parse([*SMALL, "--batch", "2", "--out", str(folder)])
    return options.setup(Lane(system, "fp32"), str(folder))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny weights."""
    folder = tmp_path_factory.mktemp("weights")
    processes.prepare(setup_in(folder), folder / "weights.log")
    return folder


# --- decisions ---


def test_paper_decisions_are_those_of_table_10() -> None:
    (entry,) = decisions.read("paper_cnndm.json", (12, 12))
    assert entry == decisions.paper_cnndm()
    skipped = {name: [i for i, keep in enumerate(entry[f"{name}_keep"]) if not keep] for name in ("attention", "ffn")}
    # Encoder layer 7 and decoder layer 7; encoder layer 9 and decoder layers 6 and 9, counted from 1.
    assert skipped == {"attention": [6, 12 + 6], "ffn": [8, 12 + 5, 12 + 8]}
    assert entry["token_strategy"] == 3  # the last 30 %
    assert "cross_attention_keep" not in entry  # goes with the decoder's self-attention
    assert len(skipped["attention"]) / 24 == pytest.approx(0.0850, abs=0.01)
    assert len(skipped["ffn"]) / 24 == pytest.approx(0.1113, abs=0.02)


def test_mixed_decisions_all_differ() -> None:
    entries = decisions.read("mixed.json", (12, 12))
    assert entries == decisions.mixed()
    assert len({json.dumps(entry) for entry in entries}) == 8
    assert {entry["token_strategy"] for entry in entries} == set(range(7))
    keep = np.array([entry["attention_keep"] + entry["ffn_keep"] for entry in entries])
    always = [0, 24]
    assert keep[:, always].all()
    assert (np.delete(keep, always, axis=1).sum(0) == 7).all()


def test_decisions_for_fewer_layers() -> None:
    (entry,) = decisions.read("paper_cnndm.json", (6, 6))  # layers 1, 3, 5, 7, 9, 11 of both
    assert [i for i, keep in enumerate(entry["attention_keep"]) if not keep] == [3, 6 + 3]
    assert [i for i, keep in enumerate(entry["ffn_keep"]) if not keep] == [4, 6 + 4]
    entries = decisions.read("mixed.json", (6, 6))
    assert decisions.in_turn(entries, 10, (6, 6))[8:] == entries[:2]
    with pytest.raises(UserError, match="must be a list of 10 booleans.*5 [+] 5 layers"):
        decisions.read("paper_cnndm.json", (5, 5))


# --- options ---


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--batch 0", "--batch 0 must be 1 or more"),
        ("--src-len 2000", "--src-len 2000 must be from 4 to 1024"),
        ("--out-len 1023", "--out-len 1023 must be from 1 to 1022"),
        ("--repeats 0", "--repeats 0 must be 1 or more"),
        ("--systems stock tensorrt", "--systems tensorrt is unknown; choose from stock, ours"),
        ("--precision int4", "--precision int4 is unknown"),
        ("--precision fp16", "--precision fp16 is not for --device cpu"),
        ("--training --precision int8", "--precision int8 is not for --training on --device cpu, which has fp32"),
        ("--training --precision fp32 fp32", "--training takes one --precision"),
        ("--geometry huge", "--geometry huge is unknown"),
        ("--backbone t5", "--backbone t5 is unknown; choose from bart, smollm2"),
        ("--gguf setup.py", "--gguf is for --backbone smollm2"),
        ("--backbone smollm2", "--geometry is for --backbone bart"),
        ("--device tpu", "--device tpu is unknown"),
        ("--decisions no.json", "--decisions no.json: neither keep-all nor a readable file"),
        ("--decisions run.sh", "--decisions run.sh: not JSON"),
        ("--out setup.py", "is no folder that can be written to"),
        ("--texts no.txt", "--texts no.txt cannot be read .*No such file"),
        ("--texts setup.py --training", "--texts is for generation: leave out --training"),
    ],
)
def test_refuses_bad_values(flags: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    with pytest.raises(UserError, match=message):
        parse([*SMALL, *flags.split()])


def test_lanes() -> None:
    for lane in (Lane("ours", "int8"), Lane("ct2-int8", "int8"), Lane("openvino", "fp32")):
        assert Lane.parse(str(lane)) == lane
    options = parse([*SMALL, *"--systems hf ct2-int8 ours --precision bf16 int8 --decisions".split(), "mixed.json"])
    assert list(map(str, options.lanes())) == ["stock fp32", "hf bf16", "ct2-int8", "ours bf16", "ours int8"]
    assert options.decisions == ("keep-all", "mixed.json")
    assert parse(SMALL).batch == (1, 8)
    assert parse([*SMALL, "--training"]).precision == ("fp32",)


# --- arithmetic ---


def test_flops_share_by_hand() -> None:
    """2 + 2 layers of 2 dimensions, feed-forward of 3, 5 words; 12 source tokens of which 3 are dropped; 2 steps."""
    shape = orders.Shape(layers=2, dim=2, ffn_dim=3, heads=1, vocabulary=5)
    options = SimpleNamespace(out_len=1, shape=shape)

    def share(*entries: Any, lengths: tuple[tuple[int, ...], ...] = ((12,),), **more: Any) -> float:
        inputs = [[[0] * length for length in batch] for batch in lengths]
        case = Case(len(inputs[0]), 1, Lane("ours", "fp32"), entries=list(entries) or None)
        return report.flops_share(case, options, inputs, **more)

    def encoder_layer(tokens: int, ffn: bool = True) -> int:
        return tokens * 4 * 2 * 2 + 2 * tokens * tokens * 2 + ffn * tokens * 2 * 2 * 3

    def decoder(source: int, attentions: int, ffns: int) -> int:
        own = 2 * 4 * 2 * 2 + 2 * (1 + 2) * 2
        cross = 2 * (2 * 2 * 2 + 2 * source * 2) + source * 2 * 2 * 2
        return attentions * (own + cross) + ffns * 2 * 2 * 2 * 3 + 2 * 2 * 5

    keep = {"attention_keep": [1, 1, 0, 1], "ffn_keep": [1, 0, 1, 1], "token_strategy": 3}  # 30 % of 10 tokens
    path = encoder_layer(12) + encoder_layer(9, ffn=False) + decoder(9, 1, 2)
    full = 2 * encoder_layer(12) + decoder(12, 2, 2)
    assert share(keep) == pytest.approx(path / full, rel=1e-12)
    everything = {"attention_keep": [1] * 4, "ffn_keep": [1] * 4, "token_strategy": 0}
    assert share(keep, everything, lengths=((12, 12),)) == pytest.approx((path / full + 1) / 2)
    short = 2 * encoder_layer(5) + decoder(5, 2, 2)
    expected = (2 * path + short) / (2 * full + short)
    assert share(keep, everything, lengths=((12, 5), (12,))) == pytest.approx(expected)
    assert share(lengths=((12, 12),)) == 1
    output = 2 * 2 * 5  # the output projection
    outside = share(keep, outside_output=True)
    assert outside == pytest.approx((path - output) / (full - output), rel=1e-12)


def test_skip_efficiency_by_hand() -> None:
    assert report.skip_efficiency(7.0, 10.0, 0.6) == pytest.approx(0.75)
    assert report.skip_efficiency(7.0, 10.0, 1.0) is None


def test_summary_by_hand() -> None:
    options = parse([*SMALL, "--batch", "1"])  # 3 words: 4 steps
    stock = Case(1, 2, Lane("stock", "fp32"), encoder=[2.0, 1.0, 3.0], total=[10.0, 9.0, 14.0])
    ours = Case(1, 2, Lane("ours", "fp32"), encoder=[1.0] * 3, total=[5.0, 4.0, 8.0])
    entries = decisions.read("paper_cnndm.json", (2, 2))
    paper = Case(
        1, 2, Lane("ours", "fp32"), "paper_cnndm.json", entries, encoder=[1.0] * 3, total=[4.0, 4.5, 3.0], peak=7
    )
    inputs = orders.batches(options.setup(Lane("stock", "fp32"), ""), 1)
    rows = report.summarize([stock, ours, paper], options, {1: inputs})
    assert rows[0]["step_seconds"] == {"median": 2.0, "min": 2.0, "max": 2.75}
    assert rows[0]["total_seconds"] == {"median": 10.0, "min": 9.0, "max": 14.0}
    assert [row["ratio_to_reference"] for row in rows] == [1.0, 0.5, 0.4]
    share = report.flops_share(paper, options, inputs)
    two = report.summarize([stock], options, {1: [*inputs, *inputs]})
    assert two[0]["step_seconds"]["median"] == 1.0, "twice as many steps in that time"
    assert rows[2]["flops_share"] == share < 1
    assert rows[2]["skip_efficiency"] == pytest.approx((1 - 4 / 5) / (1 - share))
    assert rows[1]["skip_efficiency"] is None and rows[0]["flops_share"] is None
    line = "| 1 | 2 | switchable fp32, paper_cnndm | 1.000 | 750.00 | 4.000 (3.000 to 4.500) | 0.400 |"
    assert line in report.table(rows, options)


# --- the check ---


def test_compare_turns_logits_into_log_probabilities() -> None:
    logits = np.log(np.array([[[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]]]))
    found = np.log(np.array([[5 / 8, 1 / 4]]))
    what, difference = check.compare(logits, found, np.array([[2, 0]]))
    assert what == "log-probabilities of a target" and difference == pytest.approx(0, abs=1e-12)
    assert check.compare(logits, found + 0.25, np.array([[2, 0]]))[1] == pytest.approx(0.25)


class InProcess:
    """Workers that are no processes: systems by lane."""

    def __init__(self, setups: dict[Any, Any]):
        self.setups, self.running = setups, {lane: load(setup) for lane, setup in setups.items()}
        self.files = {lane: orders.check_file(setup) for lane, setup in setups.items()}
        self.case = {lane: orders.check_case(setup) for lane, setup in setups.items()}

    def ask(self, lane: Any, do: str) -> dict[str, Any]:
        np.save(self.files[lane], self.running[lane].check(*self.case[lane]))
        return {"file": str(self.files[lane])}


def test_check_catches_a_wrong_weight(weights: Path, tmp_path: Path) -> None:
    lanes = {name: Lane(name, "fp32") for name in ("stock", "ours")}
    setups = {lane: setup_in(weights, name) for name, lane in lanes.items()}
    (result,) = check.run(InProcess(setups), setups)
    assert 0 < result["max_abs_difference"] < 1e-4 and result["compared"] == "logits"

    state = torch.load(weights / "weights.pt", weights_only=True)
    layer = "decoder.layers.1.encoder_attn."
    state[f"{layer}q_proj.weight"], state[f"{layer}k_proj.weight"] = (
        state[f"{layer}k_proj.weight"],
        state[f"{layer}q_proj.weight"],
    )
    torch.save(state, tmp_path / "weights.pt")
    setups[lanes["ours"]] = setup_in(tmp_path, "ours")
    with pytest.raises(SystemExit, match="ours fp32 does not compute what stock fp32 computes"):
        check.run(InProcess(setups), setups)


# --- bookkeeping and workers ---


def test_bookkeeping_counts_outermost_calls_and_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(bookkeeping.time, "perf_counter", lambda: next(ticks))
    from fairseq_switchdec.runtime.ragged import Ragged

    originals = {name: vars(Ragged)[name] for name in ("__init__", "select", "buckets")}
    with bookkeeping.measured() as seconds:
        tokens = Ragged([3, 5], "cpu")
        tokens.select(torch.tensor([1]))  # makes another layout inside
        assert len(tokens.buckets) == 2
        decisions = DecisionSpace(2, 2).keep_all(2)
        assert decisions.rows("ffn", 1) is None
    assert seconds["layout of tokens"] == 3  # one tick each
    assert seconds["who runs a sublayer"] == 1
    assert all(vars(Ragged)[name] is original for name, original in originals.items())


def test_a_worker_that_fails_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lane = Lane("stock", "fp32")
    with processes.Workers(tmp_path / "logs") as workers:
        assert not workers.start(lane, setup_in(tmp_path))  # no weights there
        assert workers.ask(lane, "check") is None and not workers.running
    assert "weights.pt" in workers.left_out[lane]
    assert "stock fp32 is left out: " in capsys.readouterr().out


# --- training ---


def test_policy_is_set_to_its_cost(weights: Path) -> None:
    setup = setup_in(weights, "training-ours")
    training = training_worker.Training(setup)
    model = training.trainer.model
    assert 0.5 < training.costs["greedy"] <= 0.7
    from fairseq_switchdec.cost import Lengths, cost
    from fairseq_switchdec.rl import SURVEY_INPUTS, PooledDeviation

    inputs = 4000
    source = torch.full((inputs,), setup.src_len)
    lengths = Lengths(source, source - 2, torch.full((inputs,), setup.steps), training.criterion.cfg.policy_cost_beam)
    uniforms = torch.rand(inputs, 2, generator=torch.Generator().manual_seed(1))
    floor = training.criterion.cfg.policy_floor
    space, stages = model.encoder.space, model.encoder.policy.stages
    choose = PooledDeviation(uniforms, torch.zeros(inputs, dtype=torch.bool), floor, space, stages)
    keep_all = model.encoder.space.keep_all(inputs)
    sampled = model.encoder.policy.decide(0, torch.randn(inputs, 64), choose, keep_all)
    measured = cost(model.geometry, sampled, lengths, model.encoder.policy.flops())
    error = float(measured.std()) / math.sqrt(inputs)
    assert training.costs["tried"] == pytest.approx(float(measured.mean()), abs=4 * error)
    before = model.encoder.policy.sublayer_heads[0].bias.clone()
    assert training.step(0, batch=2, decisions="learned")["seconds"] > 0
    assert training.step(1, batch=2, decisions="learned")["seconds"] > 0
    assert float(model.learner_state.surveyed) == SURVEY_INPUTS, "no update tries every strategy"
    torch.testing.assert_close(model.encoder.policy.sublayer_heads[0].bias, before, rtol=0, atol=0)


def test_training_summary_by_hand() -> None:
    seconds = {"stock": [2.0, 1.0, 3.0], "keep-all": [1.0, 1.0, 1.0], "learned": [1.0, 2.0, 6.0]}
    rows = training.summarize(2, seconds, {"stock": 100, "keep-all": 90, "learned": 120})
    assert [row["ratio_to_stock"] for row in rows] == [1.0, 0.5, 1.0]
    assert [row["mean_ratio_to_stock"] for row in rows] == [1.0, 0.5, 1.5]
    assert [row["memory_ratio_to_stock"] for row in rows] == [1.0, 0.9, 1.2]


# --- the whole, tiny ---


def test_generation_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peers = {"hf": "transformers", "ct2": "ctranslate2", "openvino": "optimum-intel", "onnxruntime": "optimum-onnx"}
    installed = [system for system, distribution in peers.items() if installed_version(distribution, default="")]
    flags = ["--batch", "1", "2", "--precision", "fp32", "--repeats", "2", "--out", str(tmp_path)]
    main([*SMALL, *flags, "--decisions", "mixed.json", "--systems", "ours", *peers])
    results = json.loads((tmp_path / "results.json").read_text())
    left_out = {f"{system} fp32" for system in peers if system not in installed}
    assert set(results["left_out"]) == left_out
    names = {(row["batch"], row["system"], row["decisions"]) for row in results["cases"]}
    for batch in (1, 2):
        ours = {(batch, "ours", "keep-all"), (batch, "ours", "mixed.json")}
        assert ours | {(batch, system, None) for system in ("stock", *installed)} <= names
    for row in results["cases"]:
        encoder, total = row["encoder_seconds"]["median"], row["total_seconds"]["median"]
        assert 0 <= encoder <= total and row["peak_bytes"] > 1e6 and len(row["runs"]["total"]) == 2
        assert (row["flops_share"] is None) == (row["system"] != "ours")
        assert (row["skip_efficiency"] is None) == (row["decisions"] != "mixed.json")
    assert {check["system"] for check in results["check"]} == {"ours", *installed}
    assert all(check["max_abs_difference"] < 1e-4 for check in results["check"])
    assert [(entry["batch"], entry["precision"]) for entry in results["bookkeeping"]] == [(1, "fp32"), (2, "fp32")]
    assert all(0 < entry["parts"]["policy"] < entry["seconds"] for entry in results["bookkeeping"])
    assert {"command", "commit", "hardware", "versions", "settings"} <= results.keys()
    assert "| 2 | 2 | switchable fp32, mixed |" in (tmp_path / "results.md").read_text()
    drawn = importlib.util.find_spec("matplotlib") is not None
    assert (tmp_path / "results.svg").exists() == drawn
    assert not list(tmp_path.glob(".weights-*")) and not list(tmp_path.glob("*.partial"))
    assert "run 2/2, batch 2, beam 2, ours fp32, mixed.json: " in capsys.readouterr().out


def test_texts_are_what_the_user_wrote(tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("one two\n\n two  one three\none two three four five six seven eight\n")
    options = parse([*SMALL[:2], "--src-len", "9", "--texts", str(tmp_path / "texts"), "--out", str(tmp_path)])
    setup = options.setup(Lane("stock", "fp32"), str(tmp_path))
    longest, three, two = texts.tokens(texts.read(options.texts), setup)
    assert list(map(len, (longest, three, two))) == [9, 5, 4], "cut to --src-len, <s> and </s> included"
    assert all((row[0], row[-1]) == (orders.BOS, orders.EOS) for row in (longest, three, two))
    assert three[1:-1] == [two[2], two[1], longest[3]], "a word is always the same token"
    setup.texts_file.write_text(json.dumps([longest, three, two]))
    assert orders.batches(setup, 2) == [[longest, three], [two]]
    assert orders.padded([three, two], left=False).tolist() == [three, [*two, orders.PAD]]
    assert orders.padded([three, two], left=True).tolist() == [three, [orders.PAD, *two]]


def test_texts_of_unequal_lengths(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every system reads a padded batch as it reads its inputs one by one."""
    rows = [[0, 7, 8, 9, 7, 8, 2], [0, 9, 2], [0, 7, 9, 8, 2]]
    for name in ("stock", "ours", *(["hf"] if importlib.util.find_spec("transformers") else [])):
        system, heard = load(setup_in(weights, name)), []
        model = system.model.model if name == "hf" else system.model
        encoder = model.encoder
        stock = encoder.forward

        @functools.wraps(stock)  # transformers passes on what a signature names
        def hear(*args: Any, _stock: Any = stock, _heard: Any = heard, **inputs: Any) -> Any:
            _heard.append(inputs or args)
            return _stock(*args, **inputs)

        monkeypatch.setattr(encoder, "forward", hear)
        timing = system.generate(rows, 2, None)
        assert timing.total > timing.encoder > 0
        given = heard[-1]
        tokens = given["input_ids"] if name == "hf" else given["src_tokens"]
        real = given["attention_mask"].bool() if name == "hf" else tokens.ne(orders.PAD)
        assert [row[kept].tolist() for row, kept in zip(tokens, real)] == rows


@pytest.mark.parametrize("backbone", ["bart", "smollm2"])
def test_benchmark_of_texts(tmp_path: Path, backbone: str) -> None:
    (tmp_path / "texts").write_text("".join(f"{'a word ' * (1 + 2 * (n % 3))}\n" for n in range(5)))
    flags = ["--texts", str(tmp_path / "texts"), "--batch", "2", "--precision", "fp32", "--repeats", "1"]
    flags += ["--out", str(tmp_path / "out"), "--backbone", backbone]
    if backbone == "bart":
        flags = [*SMALL, *flags, "--systems", "ours", "--decisions", "mixed.json"]
    else:
        pytest.importorskip("transformers")
        model = tiny_folder("llama_untied", tmp_path / "theirs", **TINY)
        flags += ["--gguf", str(write_gguf(tmp_path / "tiny.gguf", model, tmp_path / "theirs"))]
        flags += (
            "--src-len 24 --out-len 3 --beam 2 --threads 1 --device cpu --systems hf ours --decisions keep-all".split()
        )
    main(flags)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert not results["left_out"] and results["settings"]["texts"] == str(tmp_path / "texts")
    for row in results["cases"]:
        steps = 4 * 3  # of three batches
        assert row["step_seconds"]["median"] * steps + row["encoder_seconds"]["median"] == pytest.approx(
            row["total_seconds"]["median"]
        )
    assert all(check["max_abs_difference"] < 1e-4 for check in results["check"])


def test_language_model_benchmark(tmp_path: Path) -> None:
    """A tiny LLaMA's file, which transformers and ours read each in its own way."""
    pytest.importorskip("transformers")
    model = tiny_folder("llama_untied", tmp_path / "theirs", **TINY)
    gguf, path = write_gguf(tmp_path / "tiny.gguf", model, tmp_path / "theirs"), tmp_path / "path.json"
    layers = model.config.num_hidden_layers
    kept = [True] + [False] * (layers - 1)
    path.write_text(json.dumps({"attention_keep": kept, "ffn_keep": [True] * layers, "token_strategy": 2}))
    flags = "--backbone smollm2 --src-len 24 --out-len 3 --beam 1 2 --batch 1 2 --precision fp32 --repeats 1".split()
    flags += ["--threads", "1", "--device", "cpu", "--systems", "hf", "ours", "llama.cpp"]
    main([*flags, "--gguf", str(gguf), "--decisions", str(path), "--out", str(tmp_path / "out")])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    cases = {(row["batch"], row["beam"], row["system"], row["decisions"]): row for row in results["cases"]}
    for batch in (1, 2):
        for beam in (1, 2):
            assert cases[batch, beam, "hf", None]["ratio_to_reference"] == 1
            row = cases[batch, beam, "ours", str(path)]
            assert 0 < row["flops_share_outside_output"] < row["flops_share"] < 1
            assert 0 < row["encoder_seconds"]["median"] < row["total_seconds"]["median"]
    (ours,) = [check for check in results["check"] if check["system"] == "ours"]
    assert ours["max_abs_difference"] < 1e-4 and ours["with"] == "Hugging Face"
    if importlib.util.find_spec("llama_cpp") is None:
        assert "pip install llama-cpp-python" in results["left_out"]["llama.cpp file"]
    assert "| 2 | 1 | switchable fp32, keep-all |" in (tmp_path / "out" / "results.md").read_text()


def test_language_model_options(tmp_path: Path) -> None:
    options = parse(["--backbone", "smollm2", "--device", "cpu", "--out", str(tmp_path)])
    assert (options.batch, options.beam, options.src_len) == ((1, 8), (1, 4), 512)
    (entry,) = decisions.read("without_30_percent.json", options.shape.stacks)
    skipped = [name.count(False) for name in (entry["attention_keep"], entry["ffn_keep"])]
    assert skipped == [9, 9] and len(entry["attention_keep"]) == 30
    cases = generation.cases_of(options)
    assert [(case.batch, case.beam) for case in cases if case.lane.system == "llama.cpp"] == [(1, 1)] * 2
    with pytest.raises(UserError, match="--training is for --backbone bart"):
        parse(["--backbone", "smollm2", "--training"])
    with pytest.raises(UserError, match="--gguf .*no.gguf is no file"):
        parse(["--backbone", "smollm2", "--gguf", str(tmp_path / "no.gguf")])


def test_training_benchmark(tmp_path: Path) -> None:
    main([*SMALL, "--training", "--batch", "2", "--repeats", "1", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "training.json").read_text())
    assert [row["variant"] for row in results["training"]] == ["stock", "keep-all", "learned"]
    assert all(row["seconds"]["median"] > 0 and row["peak_bytes"] > 1e6 for row in results["training"])
    assert 0 < results["policy_share"] < 1 and results["costs"]["greedy"] <= 0.7
    assert "plain BART, fairseq" in (tmp_path / "training.md").read_text()

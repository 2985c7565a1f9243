"""fairseq-generate, -interactive, -validate and the hub interface: stock BART's answers, at any batch size."""

from __future__ import annotations

import atexit
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.checkpoint_utils import load_checkpoint_to_cpu
from support import DATA_FLAGS, PRECISIONS, REPO, SWITCHABLE_FLAGS, run_command

from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.errors import CallError
from fairseq_switchdec.models import SwitchableBARTModel
from fairseq_switchdec.pictures.page.dropped import SourceRule
from fairseq_switchdec.pictures.page.view import Source, input_view
from fairseq_switchdec.policy import input_uniforms, random_decisions

BEAM = ("--beam", 4, "--max-len-b", 8, "--cpu", "--seed", 1, "--num-workers", 0)


def generate(corpus: Path, checkpoint: Path, *extra: Any, switchable: bool = True, check: bool = True) -> str:
    task = SWITCHABLE_FLAGS if switchable else ["--task", "translation"]
    arguments = [*DATA_FLAGS, *task, "--path", checkpoint, "--gen-subset", "test", *BEAM]
    return run_command("generate", corpus, *arguments, *extra, check=check).stdout


def hypotheses(output: str) -> dict[int, tuple[float, str]]:
    """Score and text of every input's best hypothesis."""
    lines = re.findall(r"^H-(\d+)\t(\S+)\t(.*)$", output, flags=re.M)
    return {int(index): (float(score), text) for index, score, text in lines}


def assert_same(first: dict[int, tuple[float, str]], second: dict[int, tuple[float, str]]) -> None:
    assert first.keys() == second.keys() and len(first) == 20
    for index, (score, text) in first.items():
        assert second[index][1] == text, index
        assert second[index][0] == pytest.approx(score, abs=1e-4)


@pytest.fixture(scope="module")
def random_run(corpus, switchable_run, tmp_path_factory):
    """Half of everything skipped at random: mixed decisions in every batch."""
    report = tmp_path_factory.mktemp("report") / "report.json"
    flags = ("--switch-decisions", "random", "--switch-random-keep", 0.5)
    output = generate(corpus, switchable_run.checkpoint, *flags, "--switch-report", report, "--batch-size", 20)
    return hypotheses(output), json.loads(report.read_text()), flags


def test_keep_all_equals_stock_from_a_stock_checkpoint(corpus, stock_checkpoint, switchable_run, tmp_path):
    """A stock checkpoint given to --restore-file, trained for no update, saved and reloaded: stock's hypotheses."""
    from support import POLICY_FLAGS, architecture, train_flags

    flags = ("--restore-file", stock_checkpoint, "--lr", 0, "--reset-optimizer", "--reset-dataloader", "--reset-meters")
    run_command(
        "train", corpus, *SWITCHABLE_FLAGS, *architecture("switchable_bart_base"), *POLICY_FLAGS,
        *train_flags(tmp_path, 1, *flags, "--reset-lr-scheduler"),
    )  # fmt: skip
    expected = hypotheses(generate(corpus, stock_checkpoint, switchable=False))
    assert len({round(score, 2) for score, _ in expected.values()}) > 5
    keep_all = ("--switch-decisions", "keep-all")
    assert_same(hypotheses(generate(corpus, tmp_path / "checkpoint_last.pt", *keep_all)), expected)
    # A new policy keeps everything, so its greedy path is stock BART too; and a stock checkpoint runs as it is.
    assert_same(hypotheses(generate(corpus, tmp_path / "checkpoint_last.pt")), expected)
    assert_same(hypotheses(generate(corpus, stock_checkpoint)), expected)


def test_page_of_a_run_knows_which_words_were_dropped(corpus, random_run):
    """From the file that fairseq-preprocess read, by what the report says."""
    _, report, _ = random_run
    rule = SourceRule.of(report["run"])
    assert rule == SourceRule(limit=None, first=True, last=True) and "source" in report["run"]
    lines = (corpus.parent / "test.source").read_text().splitlines()
    for entry in report["per_input"]:
        view = input_view(entry, Source(lines[entry["id"]], lines[entry["id"]].split()), rule=rule)
        gone = sum(len(text.split()) for state, text in view["source"] if state)
        assert view["known"] and gone == view["dropped"] == round(entry["tokens_dropped"] * entry["source_tokens"])


def test_report(random_run):
    _, report, _ = random_run
    assert report["inputs"] == 20 and [entry["id"] for entry in report["per_input"]] == list(range(20))
    assert 0.3 < report["cost"] < 0.9
    assert report["seconds"] > 0
    assert len({json.dumps(entry["ffn_keep"]) for entry in report["per_input"]}) > 5


def test_same_hypotheses_at_another_batch_size(corpus, switchable_run, random_run, tmp_path):
    expected, report, flags = random_run
    again = ("--switch-report", tmp_path / "again.json", "--batch-size", 3)
    assert_same(hypotheses(generate(corpus, switchable_run.checkpoint, *flags, *again)), expected)
    other = json.loads((tmp_path / "again.json").read_text())
    for entry in (*report["per_input"], *other["per_input"]):
        entry.pop("seconds", None)
    assert other["per_input"] == report["per_input"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_moves_scores_a_little(corpus, switchable_run, random_run, precision):
    expected, _, flags = random_run
    found = hypotheses(generate(corpus, switchable_run.checkpoint, *flags, "--switch-precision", precision))
    differences = [abs(score - found[index][0]) for index, (score, _) in expected.items()]
    assert len(found) == 20 and 0 < sum(differences) / 20 < 0.05


def test_source_lookup_writes_the_same(corpus, stock_checkpoint, tmp_path):
    """By default, with one hypothesis an input; the report says what it was worth, a beam search has none.

    The stock checkpoint's weights are random, so that it repeats itself.
    """
    runs = {}
    for lookup in ("off", "auto", "6"):
        flags = ("--beam", 1, "--max-len-b", 30, "--switch-lookup", lookup, "--switch-compare", 0)
        output = generate(corpus, stock_checkpoint, *flags, "--switch-report", tmp_path / f"{lookup}.json")
        report = json.loads((tmp_path / f"{lookup}.json").read_text())
        runs[lookup] = hypotheses(output), report, "tokens in a run of the decoder" in output
    texts, expected, said = runs["off"]
    assert not said and "decoder_runs" not in expected
    for lookup in ("auto", "6"):
        found, report, said = runs[lookup]
        assert_same(found, texts)
        assert said and report["run"] == expected["run"]
        for entry, other in zip(report["per_input"], expected["per_input"]):
            assert 0 < entry.pop("decoder_runs") <= entry["target_tokens"]
            assert entry == other
        tokens = sum(entry["target_tokens"] for entry in expected["per_input"])
        assert report["tokens_a_run"] == tokens / report["decoder_runs"] >= 1
    assert runs["6"][1]["tokens_a_run"] > 1.2
    output = generate(corpus, stock_checkpoint, "--switch-report", tmp_path / "beam.json", "--switch-compare", 0)
    assert "tokens in a run" not in output and "decoder_runs" not in (tmp_path / "beam.json").read_text()


def test_forced_decisions_repeat_a_report(corpus, switchable_run, random_run, tmp_path):
    expected, report, _ = random_run
    (tmp_path / "forced.json").write_text(json.dumps(report["per_input"]))
    output = generate(corpus, switchable_run.checkpoint, "--switch-decisions", tmp_path / "forced.json")
    assert_same(hypotheses(output), expected)


def test_other_seed_decides_otherwise(corpus, switchable_run, random_run, tmp_path):
    _, report, flags = random_run
    generate(corpus, switchable_run.checkpoint, *flags, "--seed", 2, "--switch-report", tmp_path / "other.json")
    other = json.loads((tmp_path / "other.json").read_text())
    assert [e["ffn_keep"] for e in other["per_input"]] != [e["ffn_keep"] for e in report["per_input"]]


def test_greedy_rouge_and_cost_line(corpus, switchable_run, tmp_path):
    report = tmp_path / "report.json"
    flags = ("--scoring", "rouge", "--no-repeat-ngram-size", 2, "--switch-report", report)
    output = generate(corpus, switchable_run.checkpoint, *flags)
    assert re.search(r"Generate test with beam=4: .*ROUGE", output), output[-1500:]
    assert re.search(r"Switchable decisions: 20 inputs at \d+\.\d% of the keep-all FLOPs", output)
    for _, text in hypotheses(output).values():
        words = text.split()
        assert len(set(zip(words, words[1:]))) == len(list(zip(words, words[1:])))


def test_validate_with_shuffled_decisions(corpus, switchable_run):
    output = run_command(
        "validate", corpus, *SWITCHABLE_FLAGS, *DATA_FLAGS, "--path", switchable_run.checkpoint, "--cpu",
        "--valid-subset", "valid", "--batch-size", 7, "--switch-decisions", "shuffled", "--log-format", "json",
    ).stdout  # fmt: skip
    valid = json.loads(re.findall(r"\| valid \| (\{.*\})", output)[-1])
    assert 0 < float(valid["valid_cost"]) <= 1


def test_interactive_with_an_empty_line(corpus, switchable_run):
    result = subprocess.run(
        [sys.executable, "-m", "fairseq_switchdec", "interactive", str(corpus), *map(str, DATA_FLAGS),
         *SWITCHABLE_FLAGS, "--path", str(switchable_run.checkpoint), *map(str, BEAM)],
        cwd=REPO, input="w1 w2 w3\n\nw4 w5 w6 w7\n", capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(hypotheses(result.stdout)) == 3


def test_interactive_gives_decisions_by_line_whatever_the_batch(corpus, switchable_run, tmp_path):
    """fairseq sorts the lines of a buffer by length; an entry of the file belongs to a line all the same."""
    (tmp_path / "forced.json").write_text(
        json.dumps([{"attention_keep": [True] * 5, "ffn_keep": [True] * 5, "token_strategy": t} for t in (0, 3, 6)])
    )
    found = []
    for size in (1, 3):
        report = tmp_path / f"report{size}.json"
        command = [sys.executable, "-m", "fairseq_switchdec", "interactive", corpus, *DATA_FLAGS, *SWITCHABLE_FLAGS]
        command += ["--path", switchable_run.checkpoint, *BEAM, "--buffer-size", size, "--batch-size", size]
        command += ["--switch-decisions", tmp_path / "forced.json", "--switch-report", report]
        lines = "".join(" ".join(["w1"] * length) + "\n" for length in (12, 4, 7, 9))
        subprocess.run(list(map(str, command)), cwd=REPO, input=lines, capture_output=True, text=True, check=True)
        entries = json.loads(report.read_text())["per_input"]
        found.append([(entry["id"], entry["source_tokens"], entry["token_strategy"]) for entry in entries])
    assert found[0] == found[1] == [(0, 13, 0), (1, 5, 3), (2, 8, 6), (3, 10, 0)]


def test_hub_and_commands_write_the_same(corpus, switchable_run):
    """The training data has no ``<s>``, so none is put before a source or an output."""
    lines = (corpus.parent / "test.source").read_text()
    command = [sys.executable, "-m", "fairseq_switchdec", "interactive", corpus, *DATA_FLAGS, *SWITCHABLE_FLAGS]
    command += ["--path", switchable_run.checkpoint, *BEAM, "--buffer-size", 7, "--batch-size", 3]
    typed = subprocess.run(list(map(str, command)), cwd=REPO, input=lines, capture_output=True, text=True, check=True)
    stored = hypotheses(generate(corpus, switchable_run.checkpoint))
    assert_same(hypotheses(typed.stdout), stored)

    hub = SwitchableBARTModel.from_pretrained(
        str(switchable_run.folder), switchable_run.checkpoint.name, str(corpus), bpe=None
    ).eval()
    assert (hub.model.openings.source, hub.model.openings.target) == (False, False)
    texts = hub.sample(lines.splitlines(), beam=4, max_len_b=8)
    assert texts == [stored[index][1] for index in range(20)] and len(set(texts)) > 2
    released = SwitchableBARTModel.from_pretrained(
        str(switchable_run.folder), switchable_run.checkpoint.name, str(corpus), bpe=None
    ).eval()
    released.model.openings.with_bos.fill_(0.5)  # unknown: <s> before every output, as fairseq's interface has it
    tokens = [released.task.source_dictionary.encode_line(line).long() for line in lines.splitlines()]
    assert all(beams[0]["tokens"][0] == 0 for beams in released.generate(tokens, beam=4, max_len_b=8))
    assert all(beams[0]["tokens"][0] != 0 for beams in hub.generate(tokens, beam=4, max_len_b=8))


def test_a_mistake_in_a_call_is_an_ordinary_exception(corpus, switchable_run):
    load = SwitchableBARTModel.from_pretrained
    with pytest.raises(CallError, match="from_pretrained: there is no folder nowhere"):
        load("nowhere")
    files = (str(switchable_run.folder), switchable_run.checkpoint.name, str(corpus))
    with pytest.raises(CallError, match="the files of bpe='gpt2' are missing .file nowhere.json not found.: put them"):
        load(*files, gpt2_encoder_json="nowhere.json")
    hub = load(*files, bpe=None)
    with pytest.raises(CallError, match="a source of 70 tokens is longer than --max-source-positions 64"):
        hub.generate([torch.full((70,), 5)])
    with pytest.raises(CallError, match="switch_budget: 2 budgets for 1 sentences"):
        hub.generate([torch.tensor([5, 2])], switch_budget=[0.6, 0.8])
    assert issubclass(CallError, Exception)


def test_hub_interface_knows_sentences_by_their_place_in_the_call(corpus, switchable_run, tmp_path):
    """Though it sorts them by length and builds batches of batches."""
    space = DecisionSpace(3, 2)
    uniforms = input_uniforms(1, 0, torch.arange(30), space.num_sublayers + 1)
    entries = random_decisions(space, uniforms, 0.5).to_json()
    (tmp_path / "forced.json").write_text(json.dumps(entries))
    hub = SwitchableBARTModel.from_pretrained(
        str(switchable_run.checkpoint.parent), switchable_run.checkpoint.name, str(corpus), bpe=None,
        switch_decisions=str(tmp_path / "forced.json"), switch_report=str(tmp_path / "report.json"),
    )  # fmt: skip
    atexit.unregister(hub.task.finish_report)
    hub.eval()
    sentences = [torch.randint(4, 20, (3 + 7 * i % 11,)) for i in range(30)]
    hub.generate([torch.cat([words, torch.tensor([2])]) for words in sentences], beam=2, max_len_b=4)
    found = sorted(hub.task.report.inputs, key=lambda entry: entry["id"])
    assert [entry["id"] for entry in found] == list(range(30))
    for entry, expected in zip(found, entries):
        assert {name: entry[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--switch-report", "no/such/folder/report.json"), "--switch-report .* cannot be written: No such file"),
        (("--switch-decisions", "gready"), "--switch-decisions 'gready' is neither greedy"),
        (("--switch-random-keep", 2), "--switch-random-keep 2"),
        (("--switch-precision", "fp8"), "--switch-precision 'fp8' is unknown; choose from fp32, bf16, int8"),
        (("--min-len", 9), "--min-len 9 is more than the 8 tokens that --max-len-b and the model allow: lower it"),
        (("--min-len", 30, "--max-len-a", 0.1), "--min-len 30 is more than the .* for sources of .* tokens: lower it"),
        (("--switch-lookup", 0), "--switch-lookup '0' must be auto, off, or tokens to guess at a time, 1 to 31"),
        (("--max-source-positions", 9), "--max-source-positions 9.*--truncate-source"),
        (("--print-alignment",), "--print-alignment needs attention weights"),
        (("--score-reference", "--switch-report", "unused.json"), "leave out --score-reference"),
    ],
    ids=[
        "report",
        "decisions",
        "keep",
        "precision",
        "length",
        "relative",
        "lookup",
        "positions",
        "alignment",
        "reference",
    ],
)
def test_mistakes_end_with_one_message(corpus, switchable_run, flags, message):
    output = generate(corpus, switchable_run.checkpoint, *flags, check=False)
    assert "Traceback" not in output
    assert re.search("fairseq_switchdec: .*" + message, output), output[-2000:]
    assert not hypotheses(output)


def test_decisions_file_for_another_model(corpus, switchable_run, tmp_path):
    path = tmp_path / "forced.json"
    path.write_text(json.dumps({"attention_keep": [True] * 24, "ffn_keep": [True] * 24, "token_strategy": 0}))
    output = generate(corpus, switchable_run.checkpoint, "--switch-decisions", path, check=False)
    assert "Traceback" not in output
    assert "must be a list of 5 booleans (this model has 3 encoder and 2 decoder layers)" in output


def test_plain_checkpoint_that_cannot_switch(corpus, stock_checkpoint, tmp_path):
    """A plain BART runs as a switchable one, unless its layers are of a kind that ours are not."""
    state = load_checkpoint_to_cpu(str(stock_checkpoint))
    state["cfg"].model.encoder_layerdrop = 0.1
    torch.save(state, tmp_path / "layerdrop.pt")
    output = generate(corpus, tmp_path / "layerdrop.pt", "--switch-decisions", "random", check=False)
    assert "Traceback" not in output and "--path names neither" in output


def test_source_longer_than_the_model(corpus, switchable_run, tmp_path):
    """The model has 64 positions, whatever the generation command says."""
    (tmp_path / "test.source").write_text(" ".join(["w1"] * 100) + "\nw2 w3\n")
    (tmp_path / "test.target").write_text("w1\nw2\n")
    run_command(
        "preprocess", "--source-lang", "source", "--target-lang", "target", "--testpref", tmp_path / "test",
        "--srcdict", corpus / "dict.source.txt", "--tgtdict", corpus / "dict.target.txt", "--destdir", tmp_path / "bin",
    )  # fmt: skip
    output = generate(tmp_path / "bin", switchable_run.checkpoint, "--max-source-positions", 1024, check=False)
    assert "Traceback" not in output and "model's 64 positions" in output
    output = generate(tmp_path / "bin", switchable_run.checkpoint, "--truncate-source")
    assert len(hypotheses(output)) == 2 and "cuts 1 of 2 sources" in output


def test_reported_flops_are_what_an_independent_counter_sees(corpus, switchable_run):
    """Every test input alone (no padding), on mixed decisions, through the task that fairseq-generate drives."""
    from argparse import Namespace

    from fairseq import checkpoint_utils
    from torch.utils.flop_counter import FlopCounterMode

    attention = pytest.importorskip("torch.nn.attention", reason="an older torch cannot choose the counted kernel")
    overrides = {"data": str(corpus), "switch_decisions": "random", "switch_random_keep": 0.6}
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(switchable_run.checkpoint)], overrides)
    task.cfg.switch_report = "collected, not written"
    task.load_dataset("test")
    dataset = task.dataset("test")
    models[0].eval()
    generator = task.build_generator(models, Namespace(beam=4, max_len_b=8))
    counted = []
    for index in range(8):
        # The counter does not know the fused kernel of a CPU.
        with attention.sdpa_kernel(attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            task.inference_step(generator, models, dataset.collater([dataset[index]]))
        counted.append(counter.get_total_flops())
    reported = [entry["flops"] for entry in task.report.inputs]
    assert len({entry["cost"] for entry in task.report.inputs}) > 4
    assert reported == pytest.approx(counted, rel=0.01)


def test_sacrebleu_of_translations(corpus, switchable_run):
    """For BART fine-tuned to translate: fairseq's own scorer and tokenizer, on what the switchable model wrote."""
    import sacrebleu

    from fairseq_switchdec.scoring.outputs import parse_generated

    words = ("--min-len", 8, "--no-repeat-ngram-size", 1)  # different ones, so that some are right
    output = generate(corpus, switchable_run.checkpoint, "--scoring", "sacrebleu", *words)
    printed = re.search(r"Generate test with beam=4: BLEU = (\S+) ", output)
    assert printed is not None, output[-1500:]
    found = parse_generated(output.split("\n"))
    ids = sorted(found.references)
    expected = sacrebleu.corpus_bleu([found.hypotheses[i] for i in ids], [[found.references[i] for i in ids]])
    assert len(ids) == 20 and float(printed[1]) == pytest.approx(expected.score, abs=0.006)
    assert expected.score > 0

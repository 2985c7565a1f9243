"""The paper's competitors: early exits, distillation, the calibration of exits, the turns of the clock."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from omegaconf import OmegaConf
from support import SWITCHABLE_FLAGS, run_command, train_flags
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from examples.common.repository import environment, example
from examples.paper import distillation, exit_task, exit_threshold, plan, speed
from examples.paper.early_exit import EarlyExit, keep_keys_apart, layers_of
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.runtime.ragged import Ragged

pytest.importorskip("transformers")
from models.backbones import make_pair

BACKBONES = ("gpt2", "llama-grouped-untied", "llama3")


def generate(model: Any, tokens: Tensor, beam: int, length: int = 40) -> list[dict[str, Any]]:
    """The hypotheses of one source, by fairseq's generator; all have so many tokens and </s>."""
    lengths = {"max_len_b": length, "min_len": length}
    generator = SequenceGenerator([model], model.encoder.dictionary, beam_size=beam, **lengths)
    keep_all = model.encoder.space.keep_all(1)
    sample = {"net_input": {"src_tokens": tokens, "src_lengths": None, "decisions": keep_all}}
    return generator.generate([model], sample)[0]


def source(model: Any, length: int = 9) -> Tensor:
    tokens = torch.randint(10, 50, (1, length), generator=torch.Generator().manual_seed(length))
    return torch.cat([tokens, tokens.new_tensor([[model.encoder.dictionary.eos()]])], dim=1)


def exiting(model: Any, *how: Any) -> EarlyExit:
    return EarlyExit(model.decoder, model.geometry, *how)


def pack(model: Any) -> None:
    """As the task does for generation."""
    keep_keys_apart(model.decoder)
    model.prepare_for_inference_(OmegaConf.create({"generation": {}}))
    model.pack("fp32")


def middle(model: Any, confidence: str, layers: slice = slice(None)) -> float:
    """The median confidence after some layers, so that about half of the steps end."""
    tokens = generate(model, source(model), 1)[0]["tokens"]
    previous = torch.cat([tokens.new_tensor([model.encoder.dictionary.eos()]), tokens[:-1]]).unsqueeze(0)
    keep_all = model.encoder.space.keep_all(1)
    _, extra = model(source(model), None, previous, decisions=keep_all, return_all_hiddens=True)
    states = extra["inner_states"]
    if confidence == "state":
        pairs = list(zip(states, states[1:]))[:-1]
        found = torch.stack([torch.cosine_similarity(*pair, dim=-1) for pair in pairs[layers]])
    else:
        found = torch.tensor([[gap(model, state) for state in layer[:, 0]] for layer in states[1:-1][layers]])
    ordered = found.flatten().sort().values
    return float(ordered[len(ordered) // 2 - 1 : len(ordered) // 2 + 1].mean())  # no state's own, which rounding moves


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("variant", BACKBONES)
@pytest.mark.parametrize(
    "how", [("calm", "state", 1.0, "all"), ("calm", "softmax", 1.0, "all"), ("free", "softmax", 1.0, "1/3")]
)
def test_threshold_1_is_the_plain_model(variant, beam, how):
    """The same tokens and scores, to the bit, also after slots were given back."""
    plain, model = make_pair(variant).ours, make_pair(variant).ours
    exits = exiting(model, *how)
    for length in (5, 20):
        found, expected = (generate(each, source(model, length), beam) for each in (model, plain))
        assert len(found) == len(expected) == beam
        for ours, theirs in zip(found, expected):
            assert torch.equal(ours["tokens"], theirs["tokens"])
            assert torch.equal(ours["positional_scores"], theirs["positional_scores"])
    assert exits.saved == 0 and exits.ran == exits.all > 0


class Naive:
    """Greedy decoding that computes all states anew at every step, as layers read a prompt.

    Args:
        stays: of a layer's number and the states before and after it: whether a step ends there.
    """

    def __init__(self, model: Any, stays: Any):
        self.model, self.stays = model, stays

    def states(self, tokens: Tensor, exits: dict[int, int]) -> tuple[list[Tensor], int]:
        """All layers' states (N, D) of a prompt and what follows, of which positions have ended where ``exits`` says;
        and where the newest one ends.
        """
        encoder = self.model.encoder
        layout = Ragged((len(tokens),), tokens.device)
        x = encoder.embed_at(tokens, torch.arange(len(tokens)))
        found, newest, ended = [x], len(tokens) - 1, len(encoder.layers)
        for index, layer in enumerate(encoder.layers):
            after, _ = layer(x, layout, encoder.space.keep_all(1))
            going = torch.tensor([index < exits.get(place, len(encoder.layers)) for place in range(len(tokens))])
            going[newest] = index < ended
            x = torch.where(going.unsqueeze(1), after, x)
            found.append(x)
            if index < ended and self.stays(index + 1, found[-2][newest], x[newest]):
                ended = index + 1
        return found, ended

    def write(self, prompt: Tensor, steps: int) -> list[int]:
        exits: dict[int, int] = {}
        tokens, dictionary = prompt, self.model.encoder.dictionary
        for _ in range(steps):
            states, exits[len(tokens) - 1] = self.states(tokens, exits)
            logits = self.model.decoder.output_layer(self.model.encoder.layer_norm(states[-1][-1]))
            logits[[dictionary.eos(), dictionary.pad()]] = -torch.inf
            tokens = torch.cat([tokens, logits.argmax().view(1)])
        self.exits = exits
        return tokens[len(prompt) :].tolist()


def gap(model: Any, state: Tensor) -> float:
    logits = model.decoder.output_layer(model.encoder.layer_norm(state))
    first, second = logits.softmax(-1).topk(2).values.tolist()
    return first - second


@pytest.mark.parametrize("variant", BACKBONES)
@pytest.mark.parametrize(("confidence", "packed"), [("state", False), ("softmax", False), ("state", True)])
def test_calm_is_the_naive_algorithm(variant, confidence, packed):
    """Each position's keys above its exit come of the state that was trusted."""
    plain, model = make_pair(variant).ours, make_pair(variant).ours
    threshold = middle(plain, confidence)

    def stays(count: int, before: Tensor, after: Tensor) -> bool:
        if count == len(plain.encoder.layers):
            return False
        if confidence == "state":
            return float(torch.cosine_similarity(before, after, dim=0)) > threshold
        return gap(plain, after) > threshold

    naive, src_tokens = Naive(plain, stays), source(model)
    prompts = plain.encoder.prompts(src_tokens)
    prompt = prompts.tokens[0][: int(prompts.lengths[0])]
    if packed:
        pack(model)
    exits = exiting(model, "calm", confidence, threshold, "all")
    (found,) = generate(model, src_tokens, 1, length=20)
    assert found["tokens"].tolist()[:20] == naive.write(prompt, 20)
    ran = [naive.exits[len(prompt) - 1 + step] for step in range(20)]
    assert len(set(ran)) > 1, "some steps end early, some do not"
    assert exits.ran - sum(ran) in (1, 2, 3), "and the step in which </s> was forced"


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("variant", BACKBONES)
def test_free_catches_up(variant, beam):
    """A step that goes on sees what the full model sees; one that ends has the exit's distribution."""
    plain, model = make_pair(variant).ours, make_pair(variant).ours
    threshold = middle(plain, "softmax", slice(1, 2)) / beam
    exits, src_tokens = exiting(model, "free", "softmax", threshold, "2"), source(model)
    kinds = torch.zeros(2)
    for hypothesis in generate(model, src_tokens, beam):
        tokens, eos = hypothesis["tokens"], plain.encoder.dictionary.eos()
        previous = torch.cat([tokens.new_tensor([eos]), tokens[:-1]]).unsqueeze(0)
        keep_all = plain.encoder.space.keep_all(1)
        _, extra = plain(src_tokens, None, previous, decisions=keep_all, return_all_hiddens=True)
        scores = []
        for state in (extra["inner_states"][2], extra["inner_states"][3]):
            logits = plain.decoder.output_layer(plain.encoder.layer_norm(state[:, 0]))
            scores.append(logits.log_softmax(-1).gather(1, tokens.unsqueeze(1))[:, 0])
        shallow, deep = ((hypothesis["positional_scores"] - each).abs()[:-1] < 1e-4 for each in scores)
        assert bool((shallow | deep).all())
        kinds += torch.stack([shallow & ~deep, deep & ~shallow]).sum(1)
    assert bool((kinds > 0).all()) and exits.ran <= exits.all


@pytest.mark.parametrize(
    ("method", "confidence", "layers"),
    [("calm", "state", "all"), ("calm", "softmax", "1,2"), ("free", "softmax", "1")],
)
@pytest.mark.parametrize("variant", BACKBONES)
def test_cost_is_what_runs(variant, method, confidence, layers):
    """To the last product that torch counts, of two hypotheses and more steps than there are slots at first.

    Softmax of every state is dear: what is saved may be less than nothing.
    """
    plain, model = make_pair(variant).ours, make_pair(variant).ours
    threshold = middle(plain, confidence, slice(int(layers)) if method == "free" else slice(None))
    exits, counted, looked = exiting(model, method, confidence, threshold, layers), [], 0
    measure = exits.trusted

    def trusted(count: int, rows: Tensor, before: Tensor, after: Tensor) -> Tensor:
        nonlocal looked
        looked += len(rows) if count in exits.exits else 0
        return measure(count, rows, before, after)

    exits.trusted = trusted  # type: ignore[method-assign]
    previous = torch.randint(10, 50, (2, 40), generator=torch.Generator().manual_seed(1))
    for each in (plain, model):
        encoded, state = each.encoder(source(each), decisions=each.encoder.space.keep_all(1)), {}
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            for step in range(1, previous.size(1) + 1):
                each.decoder(previous[:, :step], encoded, state)
        counted.append(counter.get_total_flops())
    if confidence == "state":  # which torch does not count
        exits.saved += looked * 3 * model.geometry.encoder_dim
    assert counted[0] - counted[1] == 2 * exits.saved != 0
    assert exits.ran < exits.all or method == "free", "whose last step may run all that waited"


def test_one_input_at_a_time():
    model = make_pair("llama").ours
    exiting(model, "calm", "state", 0.5, "all")
    encoded = model.encoder(source(model).repeat(2, 1), decisions=model.encoder.space.keep_all(2))
    with pytest.raises(UserError, match="decode one input at a time"):
        model.decoder(torch.full((2, 1), 2), encoded, {})


def test_layers():
    assert layers_of("all", 4, "--x") == [1, 2, 3] and layers_of("1/3", 30, "--x") == [10]
    assert layers_of("5,1/2", 30, "--x") == [5, 15]
    for text in ("0", "30", "1/90", "five", "1/0", ""):
        with pytest.raises(UserError, match="--x .*: give all, or layers from 1 to 29"):
            layers_of(text, 30, "--x")
    with pytest.raises(UserError, match="free ends after one layer"):
        exiting(make_pair("llama").ours, "free", "softmax", 0.5, "all")


@pytest.mark.parametrize("text", ["2", "-1", "much", "nan", __file__])
def test_thresholds_that_are_none(text):
    with pytest.raises(UserError, match="--exit-threshold .*: give a number in"):
        exit_task.read_threshold(text)


def test_a_threshold_from_a_file(tmp_path):
    (tmp_path / "found.json").write_text(json.dumps({"threshold": 0.9}))
    assert exit_task.read_threshold(str(tmp_path / "found.json")) == 0.9 and exit_task.read_threshold("1") == 1


# --- the calibration ---


def test_p_values():
    """Beside the exact tail of a binomial, which they bound: and never below it."""
    from math import comb

    for losses, count, tolerance in ((0, 20, 0.25), (3, 48, 0.25), (10, 48, 0.25), (1, 100, 0.1)):
        exact = sum(comb(count, k) * tolerance**k * (1 - tolerance) ** (count - k) for k in range(losses + 1))
        found = exit_threshold.p_value(losses / count, count, tolerance)
        assert exact <= found <= 3 * exact
    assert exit_threshold.p_value(0.25, 1000, 0.25) == 1 and exit_threshold.p_value(0.3, 10, 0.25) == 1


def test_the_last_threshold_that_passes():
    def write(threshold: float) -> tuple[list[str], float]:
        wrong = 0 if threshold > 0.96 else 48 if threshold < 0.92 else 2
        return ["9 9 9"] * wrong + ["1 2 3"] * (48 - wrong), threshold

    found = exit_threshold.choose(write, 0.25)
    assert found["threshold"] == 0.93 and found["curve"][-1]["threshold"] == 0.9 and found["inputs"] == 48
    assert found["curve"][-1]["differs"] == 1 and found["curve"][0] == {
        "threshold": 0.999, "cost": 0.999, "differs": 0.0, "p": pytest.approx(0.75**48),
    }  # fmt: skip
    never = exit_threshold.choose(lambda threshold: (["1 2" if threshold == 1 else "3 4"] * 48, 1.0), 0.25)
    assert never["threshold"] == 1.0 and len(never["curve"]) == 1


# --- distillation ---


def test_divergence():
    ours, taught = torch.randn(5, 7).log_softmax(-1), torch.randn(5, 7).log_softmax(-1)
    expected = torch.nn.functional.kl_div(ours, taught, reduction="sum", log_target=True)
    torch.testing.assert_close(distillation.divergence(taught, ours), expected)
    assert distillation.divergence(ours, ours) == 0
    ours[:, 3] = taught[:, 3] = -torch.inf
    assert torch.isfinite(distillation.divergence(taught, ours))


# --- from the command line ---


TINY = [
    "--arch", "switchable_llama_tiny", "--max-source-positions", 60, "--max-target-positions", 60, "--dropout", 0,
    "--prompt-suffix", "w3 w4",
]  # fmt: skip


CRITERION = ["--criterion", "lexico_policy_criterion"]


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models of every training, by name."""
    folder = tmp_path_factory.mktemp("competitors")
    file, found = folder / "student.json", {}
    decisions = {"attention_keep": [True, False], "ffn_keep": [True, False], "token_strategy": 0}
    file.write_text(json.dumps([decisions]))
    filled = {
        plan.FILE: str(file),
        plan.TEACHER: str(folder / "plain" / "checkpoint_last.pt"),
        plan.FREE_EXIT: "1/2",
        plan.CALM_EXITS: "1",
    }
    for name in ("plain", "calm", "free", "distilled"):
        flags = [filled.get(flag, flag) for flag in plan.TRAININGS[name].flags]
        run_command("train", corpus, *SWITCHABLE_FLAGS, *train_flags(folder / name, 4), *TINY, *CRITERION, *flags)
        found[name] = folder / name / "checkpoint_last.pt"
    return {**found, "student": file}


def generation(corpus: Path, checkpoint: Path, *more: Any) -> list[Any]:
    return [
        corpus, *SWITCHABLE_FLAGS[:2], "--task", "early_exit_task", "--user-dir", plan.USER_DIR, "--path", checkpoint,
        "--switch-decisions", "keep-all", "--batch-size", 1, "--beam", 2, "--max-len-b", 10, "--cpu", *more,
    ]  # fmt: skip


def test_generation(corpus, trained, tmp_path):
    """Threshold 1 writes what the plugin's own task writes; below it, something is saved, and the report says it."""
    reports = {}
    for name, task, threshold in (
        ("stock", "switchable_task", None),
        ("whole", "early_exit_task", 1),
        ("calm", "early_exit_task", 0.2),
    ):
        words = generation(corpus, trained["calm"], "--switch-report", tmp_path / f"{name}.json", "--task", task)
        words += [] if threshold is None else ["--exit-threshold", threshold, "--exit-confidence", "state"]
        text = run_command("generate", *words, "--results-path", tmp_path / name).stdout
        assert "Switchable decisions" in text
        reports[name] = json.loads((tmp_path / f"{name}.json").read_text())
    texts = {name: hypotheses(tmp_path / name) for name in reports}
    assert texts["whole"] == texts["stock"] and len(texts["calm"]) == len(texts["stock"])
    assert reports["whole"]["cost"] == 1 and reports["whole"]["ffn_skipped"] == 0
    assert 0.5 < reports["calm"]["cost"] < 1 and 0 < reports["calm"]["ffn_skipped"] <= 0.5
    assert reports["calm"]["flops"] < sum(entry["flops"] / entry["cost"] for entry in reports["calm"]["per_input"])


def hypotheses(folder: Path) -> list[str]:
    lines = (folder / "generate-test.txt").read_text().split("\n")
    return sorted(line for line in lines if line.startswith(("H-", "P-")))


def test_a_calibrated_threshold(corpus, trained, tmp_path, monkeypatch):
    made = tmp_path / "found" / "threshold.json"
    words = generation(corpus, trained["free"], "--exit-method", "free", "--exit-layers", "1/2")
    arguments = [made, "--inputs", 11, "--tolerance", 0.9, "--", *words]
    command = [*example("paper.exit_threshold"), *map(str, arguments)]
    printed = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout
    found = json.loads(made.read_text())
    assert f"wrote {made}" in printed and found["inputs"] == 11 and found["curve"]
    assert 0 < found["least_cost"] <= found["curve"][-1]["cost"] + 1e-9
    assert all(0 < each["cost"] <= 1.6 and 0 <= each["differs"] <= 1 for each in found["curve"])
    words += ["--exit-threshold", made]
    assert "Switchable decisions" in run_command("generate", *words, "--switch-report", tmp_path / "r.json").stdout
    for flags, message in (["--inputs", "10"], "--inputs 10 must be 11 or more"), (["--tolerance", "1"], "in .0, 1."):
        monkeypatch.setattr(sys, "argv", ["exit_threshold", str(made), *flags, "--"])
        with pytest.raises(UserError, match=message):
            exit_threshold.main()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--batch-size", 2], "decode one input at a time"),
        (["--switch-decisions", "greedy"], "give --switch-decisions keep-all"),
        (["--exit-threshold", "many"], "--exit-threshold many: give a number"),
        (["--exit-layers", "2"], "--exit-layers 2: give all, or layers from 1 to 1"),
        (["--exit-method", "late"], "--exit-method 'late' is unknown; choose from calm, free"),
    ],
)
def test_options_of_exits(corpus, trained, more, message):
    failed = run_command("generate", *generation(corpus, trained["calm"], *more), check=False)
    assert failed.returncode and message in failed.stdout and "Traceback" not in failed.stdout


def test_training_of_competitors(corpus, trained, tmp_path):
    """They are validated as what they are, and their losses learn; a missing teacher is said before training."""
    for name in ("calm", "free", "distilled"):
        words = ["--user-dir", plan.USER_DIR, "--task", "switchable_task", "--valid-subset", "test", "--batch-size", 6]
        decisions = trained["student"] if name == "distilled" else "keep-all"
        text = run_command(
            "validate", corpus, *words, "--path", trained[name], "--switch-decisions", decisions, "--cpu",
            "--log-format", "json",
        ).stdout  # fmt: skip
        assert '"test_nll_loss"' in text and ('"test_cost": "1"' in text) == (name != "distilled")
    flags = [*SWITCHABLE_FLAGS, *train_flags(tmp_path / "save", 1), *TINY, *plan.DISTILLED, "--policy-decisions"]
    failed = run_command("train", corpus, *flags, trained["student"], check=False)
    assert failed.returncode and "--teacher TEACHER: name the checkpoint of the full model" in failed.stdout
    flags = [*SWITCHABLE_FLAGS, *train_flags(tmp_path / "save", 1), *TINY, *plan.EARLY_EXIT, "--exit-after", "2"]
    failed = run_command("train", corpus, *flags, check=False)
    assert failed.returncode and "--exit-after 2: give all, or layers from 1 to 1" in failed.stdout


# --- the clock ---


def test_shards():
    assert speed.shards(200, 16, 1) == 12 and speed.shards(200, 16, 8) == 12
    assert speed.shards(4, 16, 8) == 1 and speed.shards(20, 4, 8) == 2


def test_systems_take_turns(tmp_path, monkeypatch):
    """In every round each once in each batch size; what was measured is not measured again after a kill."""
    ran: list[Any] = []

    def time_once(words: Any, batch_size: int, parts: int) -> dict[str, float]:
        if len(ran) == 5:
            raise KeyboardInterrupt
        ran.append((words[0], batch_size, parts))
        return {"seconds": float(len(ran)), "memory": 1.0}

    monkeypatch.setattr(speed, "time_once", time_once)
    systems = {"a": {"command": ["a"], "batch": 8}, "b": {"command": ["b"], "batch": 1}}
    with pytest.raises(KeyboardInterrupt):
        speed.measure(systems, 2, {1: 3, 8: 2}, tmp_path / "runs.json")
    assert ran == [("a", 1, 3), ("b", 1, 3), ("a", 8, 2), ("a", 1, 3), ("b", 1, 3)]
    ran.append("killed")
    found = speed.measure(systems, 2, {1: 3, 8: 2}, tmp_path / "runs.json")
    assert ran[6:] == [("a", 8, 2)]
    assert {name: len(runs) for name, runs in found.items()} == {"a at 1": 2, "b at 1": 2, "a at 8": 2}
    systems = {"b": {"command": ["b", "else"], "batch": 1}, "a": systems["a"]}
    speed.measure(systems, 1, {1: 3, 8: 2}, tmp_path / "runs.json")
    assert ran[7:] == [("b", 1, 3)], "another command; what the others took is kept"


def test_one_run_of_the_clock(corpus, trained):
    words = [sys.executable, "-m", "fairseq_switchdec", "generate"]
    words += map(str, generation(corpus, trained["plain"], "--task", "switchable_task"))
    found = speed.time_once(words, 2, 2)
    assert found["seconds"] > 0 and found["memory"] > 50
    with pytest.raises(UserError, match="ended with status 2"):
        speed.time_once([*words, "--no-such-flag"], 2, 2)

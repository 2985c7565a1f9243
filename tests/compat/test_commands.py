"""The stock commands with the .pth file, and ``python -m fairseq_switchdec`` without it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from child_process import run_python

from fairseq_switchdec.__main__ import COMMANDS, main


def test_stock_commands_run_with_the_pth(site_with_pth, corpus, checkpoint, tmp_path):
    """fairseq's own entry point, no option of ours: generation from a checkpoint, which takes every fix."""
    generate = "import sys; from fairseq_cli.generate import cli_main; sys.exit(cli_main())"
    arguments = ("--path", checkpoint, "--gen-subset", "test", "--cpu", "--beam", "2", "--max-len-b", "5")
    done = run_python("-c", generate, corpus, *arguments, path=(site_with_pth,), cwd=tmp_path)
    assert sum(line.startswith("H-") for line in done.stdout.splitlines()) == 20


@pytest.mark.parametrize(
    ("started", "typed"),
    [("/package/__main__.py", "python -m fairseq_switchdec"), ("/venv/bin/fairseq_switchdec", "fairseq_switchdec")],
)
def test_usage_names_the_command_as_it_was_typed(monkeypatch, started, typed):
    seen = []
    command = SimpleNamespace(cli_main=lambda: seen.append(sys.argv))
    monkeypatch.setitem(sys.modules, "made_up_command", command)
    monkeypatch.setitem(COMMANDS, "made-up", ("made_up_command", "nothing"))
    monkeypatch.setattr(sys, "argv", [started, "made-up", "--option"])
    main()
    assert seen == [[f"{typed} made-up", "--option"]]


@pytest.mark.parametrize("engine", [("--engine", "ray"), ("--engine=local",)])
def test_generate_on_an_engine_is_predict(monkeypatch, engine):
    seen = []
    monkeypatch.setitem(sys.modules, "made_up_command", SimpleNamespace(cli_main=lambda: seen.append(sys.argv)))
    monkeypatch.setitem(COMMANDS, "predict", ("made_up_command", "nothing"))
    monkeypatch.setattr(sys, "argv", ["fairseq_switchdec", "generate", "--path", "model.pt", *engine])
    main()
    task = ["--task", "switchable_task"]
    assert seen == [["fairseq_switchdec generate", *task, "--path", "model.pt", *engine]]


@pytest.mark.parametrize(("arguments", "status"), [((), 2), (("trian",), 2), (("--help",), 0)])
def test_help_names_every_command(arguments, status):
    done = run_python("-m", "fairseq_switchdec", *arguments, check=False)
    assert done.returncode == status
    shown = done.stderr if status else done.stdout
    assert all(f"\n  {name}" in shown for name in COMMANDS)
    assert status == 0 or ("unknown command 'trian'" if arguments else "no command given") in shown

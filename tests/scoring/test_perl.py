"""ROUGE-1.5.5 and PTB tokenization, with stand-ins for files2rouge and Java that record what they are given."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

import pytest

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.scoring.perl import ROUGE_ARGUMENTS, perl_rouge
from fairseq_switchdec.scoring.ptb import TOKENIZER, find_jar, ptb_tokenize

PRINTED = """Preparing documents...
---------------------------------------------
1 ROUGE-1 Average_R: 0.50000 (95%-conf.int. 0.40000 - 0.60000)
1 ROUGE-1 Average_F: 0.46660 (95%-conf.int. 0.45440 - 0.47820)
1 ROUGE-2 Average_F: 0.22310 (95%-conf.int. 0.20950 - 0.23750)
1 ROUGE-L Average_F: 0.43700 (95%-conf.int. 0.42480 - 0.44900)
"""


def install(monkeypatch, run: Any) -> None:
    """Make ``run`` the installed files2rouge's."""
    package = ModuleType("files2rouge")
    package.files2rouge = ModuleType("files2rouge.files2rouge")
    package.files2rouge.run = run
    monkeypatch.setitem(sys.modules, "files2rouge", package)


def recorder(seen: dict[str, Any]):
    """The function of the versions whose command takes the summaries first; by name, order is no matter."""

    def run(ref_path, summ_path, rouge_args=None, verbose=False, saveto=None, eos="."):
        for name, path in (("references", ref_path), ("hypotheses", summ_path)):
            with open(path, encoding="utf-8") as file:
                seen[name] = file.read()
        seen.update(arguments=rouge_args, eos=eos)
        print(PRINTED)

    return run


def test_files_and_scores(monkeypatch, capsys):
    seen: dict[str, Any] = {}
    install(monkeypatch, recorder(seen))
    found = perl_rouge(["One. Two <b> & ~ more.", ""], ["", "He met Mr. Fox. He left."])
    assert [interval.mean for interval in found] == pytest.approx([46.66, 22.31, 43.70])
    assert (found[2].low, found[2].high) == pytest.approx((42.48, 44.90))
    # Sentences by our splitter, nothing that ROUGE would read as markup, and no line empty.
    assert seen["references"] == "One. ~ Two b more.\nnoreference\n"
    assert seen["hypotheses"] == "nosummary\nHe met Mr. Fox. ~ He left.\n"
    assert seen["eos"] == "~" and seen["arguments"] == ROUGE_ARGUMENTS and "-m" in ROUGE_ARGUMENTS.split()
    assert capsys.readouterr().out == ""


def test_tokenized_texts_are_split_as_published_figures_are(monkeypatch):
    seen: dict[str, Any] = {}
    install(monkeypatch, recorder(seen))
    perl_rouge(["he left . she stayed ."], ["he left ! she stayed ."], tokenized=True)
    assert seen["references"] == "he left . she stayed .\n" and seen["eos"] == "."


def fails(summ_path, ref_path, rouge_args, eos):
    raise FileNotFoundError("ROUGE-1.5.5.pl")


def leaves(summ_path, ref_path, rouge_args, eos):
    print("Can't load ROUGE settings")
    sys.exit()


def says_nothing(summ_path, ref_path, rouge_args, eos):
    print("no scores here")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (fails, "files2rouge failed: ROUGE-1.5.5.pl. See that its own test runs"),
        (leaves, "files2rouge failed: Can't load ROUGE settings"),
        (says_nothing, "gave no scores: no scores here"),
        (lambda reference, summary: None, r"lacks one of eos, ref_path, rouge_args, summ_path"),
    ],
    ids=["fails", "leaves", "no scores", "unknown version"],
)
def test_failures_have_one_message(monkeypatch, run, message):
    install(monkeypatch, run)
    with pytest.raises(UserError, match=message):
        perl_rouge(["a"], ["a"])


def fake_java(folder, monkeypatch, script: str) -> None:
    """A ``java`` on PATH that runs a shell script."""
    path = folder / "java"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_ptb_command(tmp_path, monkeypatch):
    """The recipe's class and option; a line each, empty ones included."""
    fake_java(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/arguments; sed "s/n\'t/ n\'t/; s/[.]$/ ./"')
    assert ptb_tokenize(["He didn't.", "", "a  b\u00e9."], "corenlp.jar") == ["He did n't .", "", "a b\u00e9 ."]
    assert (tmp_path / "arguments").read_text().split() == ["-cp", "corenlp.jar", TOKENIZER, "-preserveLines"]


@pytest.mark.parametrize(
    ("script", "message"),
    [("echo Error: no such class >&2; exit 1", "failed: Error: no such class"), ("echo one", "made 1 lines of 2")],
)
def test_ptb_failures(tmp_path, monkeypatch, script, message):
    fake_java(tmp_path, monkeypatch, f"cat > /dev/null; {script}")
    with pytest.raises(UserError, match=message):
        ptb_tokenize(["a", "b"], "corenlp.jar")


def test_ptb_needs_java(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no java on PATH"):
        ptb_tokenize(["a"], "corenlp.jar")


def test_jar_is_found(tmp_path, monkeypatch):
    jar = tmp_path / "stanford-corenlp-3.7.0.jar"
    jar.touch()
    monkeypatch.setenv("CLASSPATH", os.pathsep.join(["/no/other.jar", str(jar)]))
    assert find_jar(None) == str(jar)
    other = tmp_path / "other.jar"
    other.touch()
    assert find_jar(str(other)) == str(other)

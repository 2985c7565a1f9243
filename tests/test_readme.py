"""The README says what is true: its options table is the config's, and its files and flags exist."""

from __future__ import annotations

import re

import pytest
from support import REPO

from fairseq_switchdec.config import options_table

README = (REPO / "README.md").read_text(encoding="utf-8")


def test_options_table_is_the_config():
    """To renew it: python tests/test_readme.py."""
    shown = re.search(r"<!-- options: .*? -->\n(.*?)\n<!-- /options -->", README, flags=re.S)
    assert shown is not None and shown.group(1) == options_table()


def test_named_files_exist():
    for name in re.findall(r"\]\(((?:examples|tests)/[^)]+)\)", README) + re.findall(
        r"^bash (\S+\.sh)", README, flags=re.M
    ):
        assert (REPO / name).exists(), name


@pytest.mark.parametrize("page", ["README.md", "examples/RESULTS.md", "examples/summarization/README.md"])
def test_named_examples_exist(page):
    """A ``python -m examples.NAME`` runs a module, or a package with a ``__main__``."""
    for name in set(re.findall(r"python -m examples\.([\w.]*\w)", (REPO / page).read_text(encoding="utf-8"))):
        path = REPO.joinpath("examples", *name.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), name


def commands() -> list[list[str]]:
    """The fairseq commands of the README."""
    blocks = re.findall(r"```bash\n(fairseq-.*?)```", README, flags=re.S)
    return [block.replace("\\\n", " ").split() for block in blocks]


@pytest.mark.parametrize("words", commands(), ids=lambda words: words[0])
def test_commands_are_accepted_by_fairseqs_parsers(words, monkeypatch):
    from fairseq import options

    monkeypatch.chdir(REPO)
    parser = {"fairseq-train": options.get_training_parser, "fairseq-generate": options.get_generation_parser}[words[0]]
    monkeypatch.setattr("sys.argv", words)
    args = options.parse_args_and_arch(parser(), words[1:])
    assert args.task == "switchable_task"


if __name__ == "__main__":
    start, end = README.index(" -->\n", README.index("<!-- options:")) + 5, README.index("<!-- /options -->")
    (REPO / "README.md").write_text(README[:start] + options_table() + "\n" + README[end:], encoding="utf-8")

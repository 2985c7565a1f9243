"""What the Markdown files say is true: links lead somewhere, commands parse, the options are those of the config.

To renew the options table: python tests/test_readme.py.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from support import REPO

from fairseq_switchdec.__main__ import COMMANDS
from fairseq_switchdec.config import options_table

OPTIONS = "examples/OPTIONS.md"
PAGES = [
    path.relative_to(REPO).as_posix()
    for path in sorted([*REPO.glob("*.md"), *REPO.glob("examples/*.md"), *REPO.glob("examples/*/*.md")])
]
FENCE = re.compile(r"^```\w*\n(.*?)^```$", flags=re.S | re.M)


def read(page: str | Path) -> str:
    return (REPO / page).read_text(encoding="utf-8")


def prose(page: str | Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", read(page))


def links(page: str) -> list[tuple[Path, str]]:
    """File and anchor of the links into this repository, pictures included."""
    found = [link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in link]
    return [((REPO / page).parent / file if file else REPO / page, anchor) for file, _, anchor in found]


def anchors(page: Path) -> set[str]:
    """Those of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(*names: str) -> list[Any]:
    """The pages' command lines that begin with one of these, as parameters of a test: page, name, words.

    ``...`` stands for words that the reader adds; a line whose first word it is lacks what a parser needs.
    """
    found = []
    for page in PAGES:
        for block in FENCE.findall(read(page)):
            for line in block.replace("\\\n", " ").split("\n"):
                name = next((name for name in names if line.startswith(name)), None)
                words = shlex.split(line.removeprefix(name), comments=True) if name else []
                if words and words[0] != "...":
                    words = [word for word in words if word != "..."]
                    found.append(pytest.param(name, words, id=f"{page} {name}{words[0]}"))
    return found


def test_readme_is_short():
    assert len((REPO / "README.md").read_bytes()) <= 10_000


def test_options_table_is_the_config():
    shown = re.search(r"<!-- options: .*? -->\n(.*?)\n<!-- /options -->", read(OPTIONS), flags=re.S)
    assert shown is not None and shown.group(1) == options_table()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for file, anchor in links(page):
        assert file.exists(), file
        assert not anchor or anchor in anchors(file), f"{file}#{anchor}"


@pytest.mark.parametrize("page", ["README.md", "examples/README.md"])
def test_every_guide_is_linked(page):
    """And every example has one."""
    guides = {path.parent.name for path in REPO.glob("examples/*/README.md")}
    assert guides == {path.parent.name for path in REPO.glob("examples/*/__init__.py")} - {"common"}
    linked = {file.resolve() for file, _ in links(page)}
    assert linked >= {REPO / "examples" / name / "README.md" for name in guides}


@pytest.mark.parametrize("page", PAGES)
def test_named_scripts_and_examples_exist(page):
    """A ``python -m examples.NAME`` runs a module, or a package with a ``__main__``; a ``bash FILE.sh`` is there."""
    for name in set(re.findall(r"python -m examples\.([\w.]*\w)", read(page))):
        path = REPO.joinpath("examples", *name.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), name
    for name in re.findall(r"^(?:\w+=\S* )*bash (\S+\.sh)", read(page), flags=re.M):
        assert (REPO / name).is_file() or (REPO / page).parent.joinpath(name).is_file(), name


@pytest.mark.parametrize(("name", "words"), commands("fairseq-train ", "fairseq-generate ", "fairseq-preprocess "))
def test_fairseqs_parsers_accept(name, words, monkeypatch):
    from fairseq import options

    monkeypatch.chdir(REPO)
    monkeypatch.setattr("sys.argv", [name.strip(), *words])
    if name == "fairseq-preprocess ":
        options.get_preprocessing_parser().parse_args(words)
        return
    parser = {"fairseq-train ": options.get_training_parser, "fairseq-generate ": options.get_generation_parser}[name]
    assert options.parse_args_and_arch(parser(), words).task == "switchable_task"


def test_fairseqs_parser_accepts_the_options_for_rouge(monkeypatch):
    from fairseq import options

    (flags,) = (block for block in FENCE.findall(read("examples/summarization/README.md")) if "--eval-rouge" in block)
    words = commands("fairseq-train ")[0].values[1]
    monkeypatch.chdir(REPO)
    args = options.parse_args_and_arch(options.get_training_parser(), [*words, *shlex.split(flags)])
    assert args.eval_rouge and args.best_checkpoint_metric == "rougeL"


class Parsed(Exception):
    """A command line was accepted: what comes after is not run."""


@pytest.mark.parametrize(
    ("name", "words"), commands("python -m fairseq_switchdec ", "python -m examples.", "bash examples/")
)
def test_our_parsers_accept(name, words, monkeypatch):
    """Each command's own parser; those that pass unknown options on to fairseq-train return what they have read."""
    parse_args = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, *arguments: Any, **options: Any) -> None:
        parse_args(self, *arguments, **options)
        raise Parsed

    if name == "python -m fairseq_switchdec ":
        run = importlib.import_module(COMMANDS[words[0]][0]).cli_main
    else:
        script = words[0].replace("/run.sh", ".__main__").replace("/", ".")
        if (REPO / "examples" / script / "__main__.py").is_file():
            script += ".__main__"
        module = importlib.import_module(f"examples.{script}")
        run = module.parse_args if hasattr(module, "parse_args") else module.main
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    try:
        read_by_command = run()
    except Parsed:
        read_by_command = words
    assert read_by_command, "the command ended before it had read its options"


if __name__ == "__main__":
    start, end = "<!-- options: made by fairseq_switchdec.config.options_table -->\n", "\n<!-- /options -->"
    before, _, after = read(OPTIONS).partition(start)
    (REPO / OPTIONS).write_text(before + start + options_table() + end + after.partition(end)[2], encoding="utf-8")

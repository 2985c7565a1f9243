"""ROUGE-1.5.5 itself (Lin, 2004), through the package files2rouge, where both are installed.

files2rouge's command takes the summaries first in some versions and the references first in others, so its function
is called, whose arguments have kept their names. ROUGE's own options are given in full: the versions' defaults differ
in stemming.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .bootstrap import Interval
from .rouge import TITLES
from .sentences import split_sentences

#: 95 % intervals of 1,000 resamples, up to bigrams, all pairs, Porter stemming.
ROUGE_ARGUMENTS = "-c 95 -r 1000 -n 2 -a -m"
#: Separates sentences in the files; like <, > and &, ROUGE takes it for a blank.
SEPARATOR = "~"
MARKUP = re.compile("[<>&~]")
LINE = re.compile(r"(ROUGE-[12L]) Average_F: ([\d.]+) \(95%-conf\.int\. ([\d.]+) - ([\d.]+)\)")


def perl_rouge(references: Sequence[str], hypotheses: Sequence[str], *, tokenized: bool = False) -> list[Interval]:
    """F1 of a set of pairs, times 100, with ROUGE's own 95 % bootstrap intervals: ROUGE-1, ROUGE-2, ROUGE-L.

    Args:
        tokenized: the texts are PTB's; then files2rouge splits at their detached full stops, as for BART's published
            figures. Other texts are split by `split_sentences`.

    Raises:
        UserError: files2rouge is missing, unknown, or fails.
    """
    run = find_files2rouge()
    separator = "." if tokenized else SEPARATOR
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, texts, empty in (("references", references, "noreference"), ("hypotheses", hypotheses, "nosummary")):
            lines = (line(text, tokenized) or empty for text in texts)  # an empty file would stop ROUGE
            (folder / file).write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                run(
                    summ_path=str(folder / "hypotheses"),
                    ref_path=str(folder / "references"),
                    rouge_args=ROUGE_ARGUMENTS,
                    eos=separator,
                )
        except (Exception, SystemExit) as error:  # Perl, its modules and ROUGE's files may each be missing or old
            reason = str(error) or printed.getvalue().strip()[-300:]
            raise UserError(f"files2rouge failed: {reason}. See that its own test runs, after setup_rouge") from error
    return parse_scores(printed.getvalue())


def line(text: str, tokenized: bool) -> str:
    """A text as files2rouge takes it, without what would be markup to ROUGE's reader."""
    if tokenized:
        return " ".join(MARKUP.sub(" ", text).split())
    return f" {SEPARATOR} ".join(" ".join(MARKUP.sub(" ", sentence).split()) for sentence in split_sentences(text))


def find_files2rouge() -> Callable[..., Any]:
    """files2rouge's function.

    Raises:
        UserError: it is not installed, or is no version we know.
    """
    try:
        from files2rouge import files2rouge
    except ImportError as error:
        raise UserError(
            f"--files2rouge: {error}. Install it from its repository (pltrdy/files2rouge; it needs pltrdy/pyrouge and "
            "Perl with XML::DOM and DB_File), or leave the option out: rouge-score needs none of these"
        ) from error
    wanted = {"summ_path", "ref_path", "rouge_args", "eos"}
    if not wanted <= inspect.signature(files2rouge.run).parameters.keys():
        raise UserError(f"--files2rouge: this version's run() lacks one of {', '.join(sorted(wanted))}")
    return files2rouge.run


def parse_scores(text: str) -> list[Interval]:
    """The three measures of ROUGE's output.

    Raises:
        UserError: one is missing.
    """
    found = {title: Interval(*(100 * float(number) for number in numbers)) for title, *numbers in LINE.findall(text)}
    if found.keys() != set(TITLES):
        raise UserError(f"files2rouge gave no scores: {text.strip()[-300:] or 'no output'}")
    return [found[title] for title in TITLES]

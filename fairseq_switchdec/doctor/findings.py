"""A finding, and how checks are run so that one which fails is a finding too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

#: Works; works, but something could be better or is good to know; does not work, and is needed.
OK, NOTE, BROKEN = "ok", "note", "broken"


class Finding(NamedTuple):
    """What a check found out.

    Attributes:
        name: of what was looked at.
        status: `OK`, `NOTE` or `BROKEN`.
        text: what was found.
        remedy: what to do, empty where nothing is to be done.
    """

    name: str
    status: str
    text: str
    remedy: str = ""


class Check(NamedTuple):
    """Something to look at.

    Attributes:
        name: of its finding where it fails.
        run: looks, and says what it found; it may fail.
        needs: names of findings without which there is nothing to look at, should one of them be broken.
        remedy: what to do where it fails.
    """

    name: str
    run: Callable[[], list[Finding]]
    needs: tuple[str, ...] = ()
    remedy: str = "this was not foreseen: report it, with the file that doctor --json writes"


def examine(checks: Sequence[Check]) -> list[Finding]:
    """The findings of checks, run in their order; none of them ends the others."""
    findings: list[Finding] = []
    for check in checks:
        broken = [finding.name for finding in findings if finding.name in check.needs and finding.status == BROKEN]
        if broken:
            findings.append(Finding(check.name, NOTE, f"not looked at without {broken[0]}", f"mend {broken[0]} first"))
            continue
        try:
            findings += check.run()
        except (Exception, SystemExit) as error:
            findings.append(Finding(check.name, BROKEN, describe(error), check.remedy))
    return findings


def describe(error: BaseException) -> str:
    """An exception's class and the beginning of what it says, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]

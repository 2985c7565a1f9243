"""A check that fails is a finding, and what it keeps others from looking at is said once."""

from __future__ import annotations

from fairseq_switchdec.doctor.findings import BROKEN, NOTE, OK, Check, Finding, examine


def fail() -> list[Finding]:
    raise RuntimeError("no\nluck")


def leave() -> list[Finding]:
    raise SystemExit("fairseq_switchdec: a user's mistake")


def fine() -> list[Finding]:
    return [Finding("last", OK, "there")]


def test_no_check_ends_the_others():
    found = examine(
        [
            Check("first", fail, remedy="mend it"),
            Check("second", leave),
            Check("third", fine, needs=("other", "first")),
            Check("fourth", fine, needs=("other",)),
        ]
    )
    assert found[0] == Finding("first", BROKEN, "RuntimeError: no luck", "mend it")
    assert found[1].status == BROKEN and found[1].text.endswith("a user's mistake") and "--json" in found[1].remedy
    assert found[2] == Finding("third", NOTE, "not looked at without first", "mend first first")
    assert found[3:] == fine()

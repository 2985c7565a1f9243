"""``python -m fairseq_switchdec doctor``: what of this installation and machine works, what to do about the rest."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial

from .. import __version__
from ..files import check_writable, write_text
from . import gpu, installation, packages, processor
from .findings import BROKEN, NOTE, OK, Check, Finding, examine
from .processes import import_all
from .requirements import NEEDED, Requirement


def checks() -> list[Check]:
    """Everything that is looked at, in the order in which one thing needs another."""
    imported = import_all([*packages.MODULES, *packages.COMPILED, *installation.MODULES])

    def one(wanted: Requirement) -> list[Finding]:
        return [packages.package(wanted, imported[wanted.module])]

    stack = ("fixes", "numpy", "torch", "hydra-core", "omegaconf")
    needs = {"hydra-core": ("fixes",), "fairseq": stack}
    return [
        Check("Python", installation.python),
        Check("fairseq_switchdec", installation.this_package),
        Check("pip", installation.pip),
        Check("fixes", installation.fixes, remedy=installation.REINSTALL),
        *(Check(wanted.name, partial(one, wanted), needs.get(wanted.name, ())) for wanted in NEEDED),
        Check("numpy with torch", packages.numpy_and_torch, ("numpy", "torch"), packages.numpy_1()),
        Check("compiled parts", partial(packages.compiled, imported), (*stack, "fairseq")),
        Check("commands", partial(installation.commands, imported), (*stack, "fairseq")),
        Check("stock commands", installation.stock_commands, (*stack, "fairseq")),
        Check("GPU", gpu.gpus, ("torch",)),
        Check("processor", processor.processor, ("torch",)),
        Check("--switch-precision", processor.precisions, ("torch",)),
        Check("memory", processor.memory),
        Check("extras", partial(packages.extras, imported)),
    ]


def table(findings: Sequence[Finding]) -> str:
    """Findings for people: one a line, and what to do about it on the next."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for name, status, text, remedy in findings:
        lines.append(f"{status:<6}  {name:<{width}}  {text}")
        if remedy:
            lines.append(f"{'':<6}  {'':<{width}}  -> {remedy}")
    counts = {status: sum(finding.status == status for finding in findings) for status in (OK, NOTE, BROKEN)}
    summary = f"{counts[BROKEN]} broken" if counts[BROKEN] else "everything that is needed works"
    return "\n".join([*lines, "", f"{summary}; {counts[NOTE]} to note, {counts[OK]} ok"])


def cli_main() -> None:
    """Look at everything, print it, and end with status 1 where something is broken.

    Raises:
        UserError: the file cannot be written; nothing is looked at then.
    """
    parser = argparse.ArgumentParser(
        description="Checks this installation and machine. Ends with status 1 where something that is needed is broken."
    )
    parser.add_argument("--json", metavar="FILE", help="also write the findings there, for a bug report")
    args = parser.parse_args()
    if args.json is not None:
        check_writable("--json", args.json)
    print("torch and fairseq are started several times: up to a minute", file=sys.stderr)
    findings = examine(checks())
    print(table(findings))
    works = all(finding.status != BROKEN for finding in findings)
    if args.json is not None:
        content = {"fairseq_switchdec": __version__, "works": works, "findings": [item._asdict() for item in findings]}
        write_text(args.json, json.dumps(content, indent=1) + "\n")
    sys.exit(not works)

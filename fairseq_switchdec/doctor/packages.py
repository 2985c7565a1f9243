"""Are the packages there, in the versions that work, and do they work with each other?"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from .findings import BROKEN, NOTE, OK, Finding
from .processes import Imported
from .requirements import EXTRAS, FAIRSEQ, NEEDED, PURPOSES, Requirement, installed_version, installing

#: What is imported to learn about them.
MODULES = tuple(wanted.module for wanted in (*NEEDED, *(wanted for group in EXTRAS.values() for wanted in group)))
#: fairseq's own parts in C++ and Cython: what each is for, and what it is where one is absent.
COMPILED = {
    "fairseq.data.data_utils_fast": ("batches of every task", BROKEN),
    "fairseq.data.token_block_utils_fast": ("language models and denoising", BROKEN),
    "fairseq.libbleu": ("--scoring bleu, fairseq-generate's default", BROKEN),
    "fairseq.ngram_repeat_block_cuda": ("--no-repeat-ngram-size of stock tasks", OK),
}

AGAIN = "--force-reinstall --no-deps"
COMPILER = "it is compiled, which takes a C++ compiler and Python's headers (Debian: apt install g++ python3-dev)"
WRONG_NUMPY = re.compile(r"NumPy 1|_ARRAY_API|numpy\.dtype size changed|numpy\.core\.multiarray")


def package(wanted: Requirement, imported: Imported) -> Finding:
    """One package.

    Args:
        imported: how its import went.
    """
    version = installed_version(wanted.name)
    if imported.error is not None:
        text = f"{version or ''} {imported.error}".strip()
        return Finding(wanted.name, BROKEN, text, remedy(wanted, imported.error))
    place = os.path.dirname(os.path.dirname(imported.file or ""))
    if version is None:
        text = f"not installed by pip: what lies in {place} is of an unknown version"
        return Finding(wanted.name, NOTE, text, f"make sure that it is {wanted}")
    if not wanted.admits(version):
        return Finding(wanted.name, BROKEN, f"{version} in {place} is not {wanted}", installing(wanted))
    return Finding(wanted.name, OK, f"{version} in {place}")


def remedy(wanted: Requirement, error: str) -> str:
    """What to do about a failed import."""
    if WRONG_NUMPY.search(error):
        return numpy_1()
    missing = re.search(r"No module named '(\w+)'", error)
    if missing is not None and missing[1] != wanted.module:
        return installing(missing[1])
    command = installing(wanted) if missing else installing(AGAIN, wanted)
    return f"{command}; {COMPILER}" if wanted is FAIRSEQ else command


def numpy_1() -> str:
    """What to do about a package that was built for numpy 1, where there is numpy 2."""
    return f"it is built for numpy 1: {installing(Requirement('numpy', '<2'))}"


def absent(wanted: Requirement, error: str | None) -> bool:
    """Whether a package fails to be imported since it is not there at all."""
    return error is not None and f"No module named '{wanted.module}'" in error


def numpy_and_torch() -> list[Finding]:
    """Whether arrays pass between the two: torch < 2.3 was built for numpy 1, and says so only when they should."""
    import torch

    torch.from_numpy(torch.ones(2).numpy())
    return [Finding("numpy with torch", OK, "arrays pass between them")]


def compiled(imported: Mapping[str, Imported]) -> list[Finding]:
    """fairseq's compiled parts.

    Args:
        imported: how the import of each of `COMPILED` went.
    """
    findings = []
    for module, (purpose, status) in COMPILED.items():
        name, error = module.rpartition(".")[2], imported[module].error
        if error is None:
            findings.append(Finding(name, OK, f"there, for {purpose}"))
        elif status == OK:
            text = f"absent, as in every install from the index: needed for {purpose} alone"
            findings.append(Finding(name, OK, text))
        else:
            again = installing(AGAIN, "--no-cache-dir", FAIRSEQ)
            findings.append(Finding(name, status, f"{error}: needed for {purpose}", f"{again}; {COMPILER}"))
    return findings


def extras(imported: Mapping[str, Imported]) -> list[Finding]:
    """What only some commands need: a finding for each extra.

    Args:
        imported: how the import of each of `MODULES` went.
    """
    findings = []
    for extra, group in EXTRAS.items():
        name, purpose = f"[{extra}]", PURPOSES[extra]
        missing = [wanted for wanted in group if absent(wanted, imported[wanted.module].error)]
        there = [package(wanted, imported[wanted.module]) for wanted in group if wanted not in missing]
        broken = [finding for finding in there if finding.status == BROKEN]
        if broken:
            findings += [Finding(f"{name} {found.name}", BROKEN, found.text, found.remedy) for found in broken]
        elif missing:
            text = f"without {', '.join(wanted.name for wanted in missing)}, for {purpose}"
            findings.append(Finding(name, NOTE, text, installing(*missing)))
        else:
            versions = ", ".join(f"{wanted.name} {installed_version(wanted.name)}" for wanted in group)
            findings.append(Finding(name, OK, f"{versions}: for {purpose}"))
    return findings

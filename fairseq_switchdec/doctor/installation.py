"""Is this package where Python and fairseq's commands find it, and do its fixes reach them?"""

from __future__ import annotations

import os
import platform
import site
import sys
from collections.abc import Mapping, Sequence

from .. import __version__
from .findings import BROKEN, NOTE, OK, Finding
from .processes import Imported, Started, start_stock
from .requirements import installed_version, release

PACKAGE = "fairseq_switchdec"
PLACE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
#: The oldest and the newest Python.
TESTED = ((3, 9), (3, 13))
#: What ``python -m fairseq_switchdec train --user-dir fairseq_switchdec`` imports.
MODULES = ("fairseq_cli.train", "fairseq_switchdec.tasks.switchable_task", "fairseq_switchdec.models.bart.model")
#: What to do about parts that are missing or damaged.
REINSTALL = "install the package again, with pip's --force-reinstall --no-deps"
#: Instead of fairseq's own commands.
OURS = "python -m fairseq_switchdec train and so on"


def python() -> list[Finding]:
    """The interpreter."""
    text = f"{platform.python_version()} on {platform.platform()}: {sys.executable}"
    if TESTED[0] <= sys.version_info[:2] <= TESTED[1]:
        return [Finding("Python", OK, text)]
    first, last = (".".join(map(str, version)) for version in TESTED)
    return [Finding("Python", NOTE, f"{text}; not tested", f"should something fail, take Python {first} to {last}")]


def this_package() -> list[Finding]:
    """The copy that runs, against the one that is installed."""
    text = f"{__version__} in {PLACE}"
    installed = installed_version(PACKAGE)
    if installed is None:
        return [Finding(PACKAGE, NOTE, f"{text}, not installed by pip", "pip install it, for fairseq's own commands")]
    if installed != __version__:
        wanted = "leave the folder that holds this copy, or take it off PYTHONPATH"
        return [Finding(PACKAGE, NOTE, f"{text} runs, but {installed} is installed", wanted)]
    return [Finding(PACKAGE, OK, text)]


def pip() -> list[Finding]:
    """Whether pip will install fairseq again."""
    version = installed_version("pip")
    if version is None:  # an environment that uv made
        return []
    if release(version) < (24, 1):
        return [Finding("pip", OK, version)]
    text = f"{version} refuses to install fairseq 0.12.2, for the metadata of its omegaconf 2.0.6; both run"
    return [Finding("pip", NOTE, text, 'before it is to install them: pip install "pip<24.1", or use uv')]


def fixes() -> list[Finding]:
    """The compatibility layer, turned on in this process."""
    from ..compat import install

    install()
    return [Finding("fixes", OK, "the compatibility layer is on")]


def commands(imported: Mapping[str, Imported]) -> list[Finding]:
    """Whether ``python -m fairseq_switchdec train`` starts.

    Args:
        imported: how the import of each of `MODULES` went.
    """
    for name in MODULES:
        if imported[name].error is not None:
            return [Finding("commands", BROKEN, f"{name}: {imported[name].error}", REINSTALL)]
    return [Finding("commands", OK, "python -m fairseq_switchdec train starts")]


def stock_commands() -> list[Finding]:
    """Whether Python reads the ``.pth`` file, and fairseq's own commands start with it."""
    folders = (*site.getsitepackages(), site.getusersitepackages())
    return judge(start_stock(), [folder for folder in folders if os.path.exists(f"{folder}/{PACKAGE}.pth")])


def judge(started: Started, holding: Sequence[str]) -> list[Finding]:
    """What the start of a stock command says.

    Args:
        holding: the folders that hold our ``.pth`` file, of those where Python reads such files.
    """
    command, instead = "fairseq-train --user-dir fairseq_switchdec", f"type {OURS}, or pip install the package here"
    if started.fixes:
        pth = Finding(".pth", OK, f"active: {', '.join(holding) or 'on PYTHONPATH'}")
    elif holding:
        text = f"{holding[0]} holds it, but Python finds no package for it"
        pth = Finding(".pth", BROKEN, text, "pip uninstall fairseq_switchdec, and install it again")
    else:
        pth = Finding(".pth", NOTE, "not there: fairseq's own commands run without the fixes", instead)
    if started.error is None:
        return [pth, Finding("stock commands", OK, f"{command} starts in any folder")]
    return [pth, Finding("stock commands", BROKEN if started.fixes else NOTE, f"{command}: {started.error}", instead)]

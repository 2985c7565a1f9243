"""A disk that fills leaves nothing behind; a model passes through less memory than it needs itself."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf_files import write_gguf
from hugging_face.support import tiny_folder
from support import REPO

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.models.hugging_face.exporter import export_folder
from fairseq_switchdec.models.hugging_face.importer import import_model
from fairseq_switchdec.models.hugging_face.staging import staged
from fairseq_switchdec.models.hugging_face.tensors import LazyTensor


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: theirs and ours."""
    folder = tmp_path_factory.mktemp("model")
    tiny_folder("t5", folder / "theirs")
    import_model(str(folder / "theirs"), str(folder / "ours"))
    return folder


def write(command: str, model: Path, out: Path) -> None:
    """Import, or export."""
    if command == "import":
        import_model(str(model / "theirs"), str(out))
    else:
        export_folder(str(model / "ours/model.pt"), str(out))


def full(*unused: Any, **unused_too: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("command", ["import", "export"])
@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("place", ["text", "first", "last", "rename", "none free"])
def test_full_disk(command, existing, place, model, tmp_path, monkeypatch):
    out = tmp_path / "out"
    if existing:
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    if place == "text":
        monkeypatch.setattr(Path, "write_text", full)
    elif place == "rename":
        monkeypatch.setattr(Path, "replace", full)
    elif place == "none free":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    else:
        calls, stock = [0], LazyTensor.bytes

        def bytes_of(tensor: LazyTensor) -> memoryview:
            calls[0] += 1
            return full() if calls[0] == (1 if place == "first" else 50) else stock(tensor)

        monkeypatch.setattr(LazyTensor, "bytes", bytes_of)
    reason = "bytes are needed, 0 are free" if place == "none free" else "No space left on device"
    with pytest.raises(UserError, match=f"out cannot be written: .*{reason}. Name a folder on another disk"):
        write(command, model, out)
    assert out.exists() == existing
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "notes.txt"] * existing
    monkeypatch.undo()
    write(command, model, out)


LIMITED = """
import resource, sys
from fairseq_switchdec.models.hugging_face.importer import import_model
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
import_model(sys.argv[1], sys.argv[2])
"""


def run_script(script: str, *arguments: Any) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("size", [1000, 20_000, 55_000])
def test_writes_that_the_system_refuses(size, model, tmp_path):
    """Not patched: the process may write no larger file."""
    result = run_script(LIMITED, model / "theirs", tmp_path / "out", size)
    assert result.returncode == 1 and "cannot be written: File too large" in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert [*tmp_path.iterdir()] == []


def test_a_rename_that_fails_takes_back_those_before_it(tmp_path, monkeypatch):
    """Nothing stays under a final name, nor the folders that were made for it."""
    rename = Path.replace

    def fails(self: Path, target: Path) -> Path:
        if target.name == "second":
            raise OSError(5, "Input/output error", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    writing = staged("import", tmp_path / "a/b", ("first", "second"), 0)
    with pytest.raises(UserError, match="Input/output error"), writing as paths:
        for path in paths.values():
            path.write_text("")
    assert [*tmp_path.iterdir()] == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)], capture_output=True
    ).returncode:  # fmt: skip
        pytest.skip("no right to mount a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("command", ["import", "export"])
def test_small_disk(command, small_disk, model, monkeypatch):
    stock = shutil.disk_usage
    with pytest.raises(UserError, match=r"bytes are needed, [\d,]+ are free"):
        write(command, model, small_disk / "out")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: stock(path)._replace(free=10**9))
    with pytest.raises(UserError, match="No space left on device"):
        write(command, model, small_disk / "out")
    assert [*small_disk.iterdir()] == []


#: VmHWM, the process's own peak; ru_maxrss begins with what the process had that started it.
MEASURED = """
import re, sys
import gguf, safetensors, tokenizers, torch
from fairseq_switchdec.models.hugging_face.importer import import_model

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)) * 1024

before = peak()
import_model(sys.argv[1], sys.argv[2])
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("layout", ["safetensors", "bin", "half", "gguf"])
def test_memory(layout, tmp_path):
    """At most 1.3 of the float32 weights, of which the mapped source file, which Linux may drop, is 1.0."""
    pytest.importorskip("gguf")
    sizes = dict(hidden_size=512, intermediate_size=1536, num_hidden_layers=12, num_attention_heads=8, vocab_size=20000)
    model = tiny_folder("llama", tmp_path / "theirs", **sizes, num_key_value_heads=8)
    weights = 4 * sum(weight.numel() for weight in model.parameters())
    assert weights > 200e6
    source = tmp_path / "theirs"
    if layout == "gguf":
        source = write_gguf(tmp_path / "model.gguf", model, source, "F16")
    elif layout != "safetensors":
        (tmp_path / "theirs/model.safetensors").unlink()
        (model.half() if layout == "half" else model).save_pretrained(
            tmp_path / "theirs", safe_serialization=layout == "half"
        )
    del model
    result = run_script(MEASURED, source, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    share = int(result.stdout.splitlines()[-1]) / weights
    print(f"{layout}: {share:.2f} of {weights:,} bytes")
    assert share < 1.3
    shutil.rmtree(tmp_path)

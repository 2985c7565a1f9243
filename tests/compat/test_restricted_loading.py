"""A checkpoint loads if it holds what fairseq saves; else it is refused, and nothing in it is executed."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import random
import shutil
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy
import pytest
import torch
from child_process import TINY_BART, run_python
from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils

from fairseq_switchdec.compat.checkpoints import admitted, to_be_run
from fairseq_switchdec.errors import UserError

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])  # released BART models are legacy


@pytest.fixture(params=["this torch", "this torch, mapped", "torch < 2.6"], autouse=True)
def torch_version(request, monkeypatch):
    """The restricted unpickler for older releases of torch works on every release, so it is tested on every one."""
    if request.param == "torch < 2.6":
        monkeypatch.setattr(torch, "__version__", "2.5.1")
    with to_be_run() if request.param == "this torch, mapped" else contextlib.nullcontext():
        yield


def save(state, path: Path, zipped: bool) -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    return path


def load(path: Path) -> dict:
    return checkpoint_utils.load_checkpoint_to_cpu(str(path))


@FORMATS
def test_loads_what_fairseq_saved(checkpoint, tmp_path, zipped):
    state = torch.load(checkpoint, weights_only=False)
    state["extra_state"]["val_loss"] = numpy.float64(1.5)  # the type of a score computed with numpy
    loaded = load(save(state, tmp_path / "checkpoint.pt", zipped))
    assert isinstance(loaded["cfg"].model, Namespace)
    assert loaded["extra_state"]["val_loss"] == 1.5
    counts = [meter[3]["val"] for meter in loaded["extra_state"]["metrics"]["valid"] if meter[1] == "_bleu_counts"]
    assert isinstance(counts[0], numpy.ndarray)
    torch.testing.assert_close(loaded["model"], state["model"])
    torch.testing.assert_close(loaded["last_optimizer_state"], state["last_optimizer_state"])


def test_loaded_state_can_be_saved_and_sent(checkpoint, tmp_path):
    """Scripts that trim checkpoints save a DictConfig; on resume it is sent to the other processes of a training."""
    state = load(checkpoint)
    assert load(save(state, tmp_path / "again.pt", zipped=True))["cfg"].model == state["cfg"].model
    buffer = io.BytesIO()
    torch.save(distributed_utils._split_tensors_from_obj(state, tensors := []), buffer)
    buffer.seek(0)
    received = distributed_utils._put_tensors_in_obj(distributed_utils.torch.load(buffer, map_location="cpu"), tensors)
    torch.testing.assert_close(received["model"], state["model"])
    assert received["cfg"].model == state["cfg"].model
    assert received["cfg"].common.seed == state["cfg"].common.seed


class Call:
    """Pickled as a call of ``function(*args)``, which an ordinary unpickler carries out."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@FORMATS
@pytest.mark.parametrize(
    ("function", "named"),
    [(os.system, "system"), (eval, "eval"), (os.mkdir, "mkdir"), (shutil.rmtree, "rmtree"), (getattr, "getattr")],
)
def test_refuses_and_never_executes(checkpoint, tmp_path, zipped, function, named):
    marker = tmp_path / "executed"
    argument = {os.system: f"touch {marker}", eval: f"open({str(marker)!r}, 'w')"}.get(function, str(marker))
    state = torch.load(checkpoint, weights_only=False)
    state["cfg"]["model"].hidden = Call(function, argument)
    path = save(state, tmp_path / "bad.pt", zipped)
    with pytest.raises(UserError, match=rf"bad\.pt holds \S*{named}, which no fairseq 0\.12\.2 checkpoint does"):
        load(path)
    assert not marker.exists()


@FORMATS
def test_refuses_classes_it_does_not_know(checkpoint, tmp_path, zipped):
    state = {**torch.load(checkpoint, weights_only=False), "model": collections.UserDict()}
    with pytest.raises(UserError, match=r"holds collections\.UserDict"):
        load(save(state, tmp_path / "checkpoint.pt", zipped))


def test_refuses_to_change_a_class(tmp_path):
    """What is admitted may be made, not altered: BUILD on a class would set attributes for the whole process."""
    # The class itself, then the instruction (None, {"marker": 1}): attributes to set one by one.
    program = b"\x80\x02cargparse\nNamespace\nN}X\x06\x00\x00\x00markerK\x01s\x86b."
    pickle.loads(program)
    assert Namespace.marker == 1
    del Namespace.marker
    with zipfile.ZipFile(tmp_path / "checkpoint.pt", "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    with pytest.raises(UserError):
        load(tmp_path / "checkpoint.pt")
    assert not hasattr(Namespace, "marker")


def test_environment_cannot_turn_it_off(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UserError, match="holds"):
        load(save({"model": Call(os.getcwd)}, tmp_path / "checkpoint.pt", zipped=True))


@FORMATS
def test_damaged_files(checkpoint, tmp_path, zipped):
    """Whatever is missing or changed, there is a result or a message that names the file; no other exception."""
    whole = save(torch.load(checkpoint, weights_only=False), tmp_path / "whole.pt", zipped).read_bytes()
    path = tmp_path / "damaged.pt"
    generator = random.Random(0)
    for share in (0, 0.001, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match=r"damaged\.pt cannot be read as a checkpoint .* copy or download it again"):
            load(path)
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[generator.randrange(min(len(whole), 20_000))] ^= 1 << generator.randrange(8)
        path.write_bytes(flipped)
        try:
            load(path)
        except UserError as error:
            assert "damaged.pt" in str(error)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (torch.zeros(3), "not a fairseq checkpoint"),
        ({"weight": torch.zeros(3)}, "not a fairseq checkpoint"),
        ({"model": {"weight": torch.zeros(3)}}, "not a fairseq checkpoint"),
    ],
)
def test_other_pytorch_files(tmp_path, state, message):
    with pytest.raises(UserError, match=message):
        load(save(state, tmp_path / "other.pt", zipped=True))


def test_other_files(tmp_path):
    (tmp_path / "text.pt").write_text("<html>404 not found</html>\n")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "archive.pt", "w") as archive:
        archive.writestr("a", "b")
    for name in ("text.pt", "script.pt", "archive.pt"):
        with pytest.raises(UserError, match=f"{name} cannot be read as a checkpoint"):
            load(tmp_path / name)


def test_torch_load_stays_as_it_is(checkpoint):
    load(checkpoint)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(checkpoint, weights_only=True)


def test_admits_no_function_but_numpy_s():
    functions = {name for name, thing in admitted().items() if not isinstance(thing, type) and name != "typing.Any"}
    assert {name.rpartition(".")[2] for name in functions} == {"_reconstruct", "scalar"}


def test_commands_print_the_message_alone(corpus, tmp_path, torch_version, request):
    if "this torch" not in request.node.callspec.id:
        pytest.skip("a child process has the installed torch")
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"PK\x03\x04 truncated")
    train = ("-m", "fairseq_switchdec", "train", corpus, *TINY_BART, "--restore-file", path, "--save-dir", tmp_path)
    done = run_python(*train, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"fairseq_switchdec: {path} cannot be read as a checkpoint")
    assert "Traceback" not in done.stderr


def test_a_length_that_no_file_has(tmp_path, monkeypatch):
    """One flipped bit makes a string of 8 exabytes, which Python meets with a MemoryError."""
    from fairseq_switchdec.compat import checkpoints, restricted_pickle

    def load_as_before_torch_2_6(file, map_location=None):
        return restricted_pickle.load(file, map_location, admitted())

    monkeypatch.setattr(checkpoints, "_restricted_load", load_as_before_torch_2_6)
    path = tmp_path / "damaged.pt"
    path.write_bytes(b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"\n")
    with pytest.raises(UserError, match=r"damaged\.pt cannot be read as a checkpoint .* copy or download it again"):
        load(path)

"""What the fixes do to modules of fairseq and hydra."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from argparse import Namespace
from types import ModuleType

import pytest
import torch
from child_process import REPOSITORY, run_python
from fairseq import options
from fairseq.modules import TransformerEncoderLayer
from support import DATA_FLAGS, POLICY_FLAGS, SWITCHABLE_FLAGS, architecture, run_command

from fairseq_switchdec.compat import mutable_defaults
from fairseq_switchdec.compat.hydra_plugins import _walk_packages
from fairseq_switchdec.compat.imports import ImportHooks, ModuleView

USER_DIR = """
import os, sys
from argparse import Namespace
from fairseq_switchdec.compat import install
install()
from fairseq import utils
from fairseq.tasks import TASK_REGISTRY
utils.import_user_module(Namespace(user_dir={user_dir!r}))
print(*sorted(name for name in TASK_REGISTRY if name.startswith("made_up")))
"""

TASK = """
from fairseq.tasks import FairseqTask, register_task
@register_task("made_up_{name}")
class MadeUp(FairseqTask):
    pass
"""


READS_AHEAD = """
import sys
from fairseq_switchdec.compat import install
install()
import torch
from fairseq.data.iterators import BufferedIterator

class Batches:
    def __iter__(self):
        while True:
            yield torch.stack([torch.randn(300, 300) @ torch.randn(300, 300) for _ in range(20)])
    def __len__(self):
        return 10**9

for size in (1, 10**6):  # a thread that waits for room, and one that never does
    next(BufferedIterator(size, Batches()))
sys.exit(3)
"""


@pytest.fixture
def two_copies(tmp_path):
    """Folders ``a`` and ``b``, each with the package reduced to this layer and a task named after the folder."""
    for name in ("a", "b"):
        package = tmp_path / name / "fairseq_switchdec"
        (package / "tasks").mkdir(parents=True)
        for item in ("__init__.py", "errors.py", "compat"):
            (package / item).symlink_to(REPOSITORY / "fairseq_switchdec" / item)
        (package / "tasks/__init__.py").touch()
        (package / "tasks/made_up.py").write_text(TASK.format(name=name))
    return tmp_path


@pytest.mark.parametrize(
    ("user_dir", "folder", "registered"),
    [
        ("fairseq_switchdec", ".", "made_up_a"),  # the installed package, from anywhere
        ("b/fairseq_switchdec", ".", "made_up_b"),  # another copy: the one that is named
    ],
)
def test_user_dir_registers_tasks(two_copies, user_dir, folder, registered):
    shown = run_python("-c", USER_DIR.format(user_dir=user_dir), path=(two_copies / "a",), cwd=two_copies / folder)
    assert shown.stdout.split() == [registered]


def test_a_missing_user_dir_is_fairseq_s_to_report():
    from fairseq import utils

    with pytest.raises(FileNotFoundError):
        utils.import_user_module(Namespace(user_dir="no_such_folder"))


def test_an_exit_while_batches_are_read_ahead_is_not_an_abort():
    assert run_python("-c", READS_AHEAD, check=False).returncode == 3


def test_spawned_process_has_the_fixes():
    from fairseq.distributed.utils import distributed_main

    program = f"import pickle; print(pickle.loads({pickle.dumps(distributed_main)!r}).__module__); import fairseq"
    assert run_python("-c", program).stdout.split() == ["fairseq_switchdec.compat.spawn"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a dataclass may be a default")
def test_only_their_dataclasses_become_hashable():
    def made_in(package: str):
        own = type("Own", (), {"__module__": f"{package}.configs", "__annotations__": {"x": int}, "x": 0})
        with mutable_defaults._hashable_dataclasses():
            return dataclasses.dataclass(own)

    assert made_in("fairseq").__hash__ is not None
    assert made_in("fairseqs").__hash__ is None
    assert dataclasses.dataclass is mutable_defaults._stock_dataclass


def test_hooks_leave_other_modules_alone(monkeypatch):
    seen = []
    hooks = ImportHooks()
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    hooks.after("colorsys", seen.append)
    monkeypatch.setattr(sys, "meta_path", [hooks, *sys.meta_path])
    assert hooks.find_spec("wave") is None
    import colorsys

    assert seen == [colorsys]
    hooks.after("sys", seen.append)  # imported already: at once
    assert seen == [colorsys, sys]


def test_view_replaces_names_for_one_user():
    module = ModuleType("stock")
    module.kept, module.replaced = 1, 2
    view = ModuleView(module, replaced=3)
    assert (view.kept, view.replaced, module.replaced, view.__name__) == (1, 3, 2, "stock")


def test_hydra_scans_its_plugins():
    from hydra.core.plugins import Plugins
    from hydra.plugins.launcher import Launcher

    assert any(plugin.__name__ == "BasicLauncher" for plugin in Plugins.instance().discover(Launcher))
    import hydra._internal.core_plugins as core

    importers = {name: importer for importer, name, _ in _walk_packages(core.__path__, f"{core.__name__}.")}
    name = "hydra._internal.core_plugins.basic_launcher"
    assert importers[name].find_module(name).load_module(name) is sys.modules[name]


def test_stock_encoder_takes_left_padding():
    """The fused path of fairseq's transformer gives what its ordinary path gives, and TorchScript compiles both."""
    args = Namespace(
        encoder_embed_dim=16, encoder_ffn_embed_dim=24, encoder_attention_heads=2, dropout=0.0, attention_dropout=0.0
    )
    layer = TransformerEncoderLayer(args)
    layer.load_state_dict(layer.state_dict())  # where fairseq fills the weights of the fused path
    layer.eval()
    x, padding = torch.randn(2, 6, 16), torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    assert layer.can_use_fastpath and layer.load_to_BT
    with torch.no_grad():
        fused = layer(x, padding)  # batch first on this path
        layer.can_use_fastpath = False
        ordinary = layer(x.transpose(0, 1), padding).transpose(0, 1)
    torch.testing.assert_close(fused[~padding], ordinary[~padding])
    torch.jit.script(layer)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("--task switchable_task --arch switchable_bart_tiny --criterion lexico_policy_criterion", True),
        ("--task translation --criterion lexico_policy_criterion", False),  # no --arch: fairseq goes no further
    ],
)
def test_help_lists_the_options_that_a_command_line_brings(capsys, words, shown):
    command = ["--user-dir", "fairseq_switchdec", *words.split(), "--help"]
    with pytest.raises(SystemExit) as ended:
        options.parse_args_and_arch(options.get_training_parser(), command)
    assert ended.value.code == 0
    listed = capsys.readouterr().out
    assert "--max-update" in listed
    assert all((f"{option} " in listed) == shown for option in ("--truncate-source", "--switch-scope", "--policy-rule"))


@pytest.mark.parametrize("arch", ["bart_base", "switchable_bart_base", "switchable_gpt2_tiny"])
def test_the_first_nan_of_a_diverged_training_is_named(arch, tmp_path, corpus):
    """Where a layer's weight is no number, fairseq-train ends by saying in which module it saw the first one."""
    ours = arch.startswith("switchable_")
    task = SWITCHABLE_FLAGS if ours else ["--task", "translation"]
    criterion = POLICY_FLAGS if ours else ["--criterion", "cross_entropy"]
    sizes = ["--arch", arch, "--max-target-positions", 32] if "gpt2" in arch else architecture(arch)
    flags = [*task, *criterion, *DATA_FLAGS, *sizes, "--optimizer", "adam", "--lr", 0, "--batch-size", 4]
    flags += ["--disable-validation", "--cpu", "--save-dir", tmp_path]
    run_command("train", corpus, *flags, "--max-update", 1)
    state = torch.load(tmp_path / "checkpoint_last.pt", weights_only=False)
    state["model"]["encoder.layers.1.fc2.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "checkpoint_last.pt")
    done = run_command("train", corpus, *flags, "--max-update", 3, check=False)
    assert done.returncode, "it goes on as if nothing were wrong"
    assert "NaN detected in output of encoder.layers.1.fc2, shape" in done.stdout
    assert "StopIteration" not in done.stdout and "TypeError" not in done.stdout

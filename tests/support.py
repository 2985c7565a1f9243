"""What tests share: tiny models with unequal sizes, made-up data, the real command lines."""

from __future__ import annotations

import random
import subprocess
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fairseq_switchdec.compat import install

install()

import pytest  # noqa: E402
import torch  # noqa: E402
from fairseq.data import Dictionary  # noqa: E402
from fairseq.models.bart.model import BARTModel, bart_base_architecture  # noqa: E402
from fork_server import run_module  # noqa: E402

from fairseq_switchdec.models.bart.model import SwitchableBARTModel, switchable_bart_base  # noqa: E402
from fairseq_switchdec.runtime.packing import BFloat16Linear, bf16_products  # noqa: E402

#: For tests of bfloat16 on a processor, which not all can.
BF16 = pytest.mark.skipif(not bf16_products(), reason="oneDNN multiplies no bfloat16 on this processor")
PRECISIONS = [pytest.param("bf16", marks=BF16), "int8"]


def marked(kinds):
    """Classes of packed layers as parameters of a test."""
    return [pytest.param(kind, marks=BF16) if kind is BFloat16Linear else kind for kind in kinds]


REPO = Path(__file__).resolve().parent.parent

#: Unequal on purpose: an axis taken for another fails.
GEOMETRY = dict(
    encoder_embed_dim=12,
    encoder_ffn_embed_dim=20,
    decoder_ffn_embed_dim=28,
    encoder_layers=3,
    decoder_layers=2,
    encoder_attention_heads=3,
    decoder_attention_heads=2,
    max_source_positions=64,
    max_target_positions=48,
)


def make_dictionary(words: int = 50) -> Dictionary:
    """``<s> <pad> </s> <unk>`` and made-up words."""
    dictionary = Dictionary()
    for number in range(words):
        dictionary.add_symbol(f"w{number}")
    return dictionary


def model_args(**changes: Any) -> Namespace:
    """Arguments of the tiny geometry."""
    return Namespace(**{**GEOMETRY, "dropout": 0.1, "task": "translation", **changes})


def build_stock(dictionary: Dictionary, **changes: Any) -> BARTModel:
    """A stock fairseq BART with weights large enough that its outputs differ between inputs."""
    args = model_args(**changes)
    bart_base_architecture(args)
    model = BARTModel.build_model(args, task_of(dictionary))
    randomize(dict(model.named_parameters()))
    return model.eval()


def randomize(weights: dict[str, torch.Tensor]) -> None:
    """Fill all matrices with numbers large enough that a model's outputs differ between inputs."""
    generator = torch.Generator().manual_seed(7)
    shared = torch.randn(weights["encoder.embed_tokens.weight"].shape, generator=generator) * 0.2
    for name, weight in weights.items():
        if "embed_tokens" in name or "output_projection" in name:
            weight.data.copy_(shared)
        elif weight.dim() > 1:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.2)


def build_switchable(dictionary: Dictionary, stock: BARTModel | None = None, **changes: Any) -> SwitchableBARTModel:
    """Ours, with a stock model's weights when one is given."""
    args = model_args(**changes)
    switchable_bart_base(args)
    model = SwitchableBARTModel.build_model(args, task_of(dictionary))
    if stock is not None:
        model.load_state_dict({name: value.clone() for name, value in stock.state_dict().items()}, strict=True)
    return model.eval()


def task_of(dictionary: Dictionary) -> SimpleNamespace:
    """As much of a task as building a model needs."""
    return SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)


# --- the real command lines ---


def run_command(command: str, *arguments: Any, check: bool = True) -> subprocess.CompletedProcess:
    """``python -m fairseq_switchdec COMMAND ...`` in a process of its own; stdout and stderr together."""
    result = run_module(command, *arguments, timeout=600)
    assert not check or result.returncode == 0, result.stdout[-5000:]
    return result


def write_corpus(folder: Path, sizes: dict[str, int]) -> None:
    """Sources of 3 to 20 words, targets their first two words and last one."""
    rng = random.Random(5)
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in sizes.items():
        sources = [[f"w{rng.randrange(50)}" for _ in range(rng.randint(3, 20))] for _ in range(size)]
        targets = [[*words[:2], words[-1]] for words in sources]
        for suffix, lines in (("source", sources), ("target", targets)):
            (folder / f"{split}.{suffix}").write_text("".join(" ".join(words) + "\n" for words in lines))


def make_corpus(folder: Path, sizes: dict[str, int]) -> Path:
    """A made-up corpus, binarized by fairseq-preprocess with a joined dictionary."""
    write_corpus(folder, sizes)
    files = [word for split in sizes for word in (f"--{split}pref", folder / split)]
    languages = ["--source-lang", "source", "--target-lang", "target", "--joined-dictionary"]
    run_command("preprocess", *languages, "--destdir", folder / "bin", *files)
    return folder / "bin"


DATA_FLAGS = ["--source-lang", "source", "--target-lang", "target", "--max-source-positions", 64]
SWITCHABLE_FLAGS = ["--user-dir", "fairseq_switchdec", "--task", "switchable_task"]
POLICY_FLAGS = ["--criterion", "lexico_policy_criterion", "--policy-lr", 5e-3, "--policy-statistics-inputs", 32]


def generate(corpus: Path, checkpoint: Path, *extra: Any, check: bool = True) -> str:
    """``fairseq-generate`` of the test set by a small beam search; stdout and stderr together."""
    return run_command(
        "generate", corpus, *DATA_FLAGS, *SWITCHABLE_FLAGS, "--path", checkpoint, "--gen-subset", "test", "--cpu",
        "--beam", 2, "--max-len-b", 8, "--batch-size", 4, "--num-workers", 0, *extra, check=check,
    ).stdout  # fmt: skip


def train_flags(save_dir: Path, updates: int, *extra: Any) -> list[Any]:
    """What every training run of the tests shares."""
    return [
        *DATA_FLAGS, "--max-target-positions", 48, "--save-dir", save_dir, "--max-update", updates, "--batch-size", 12,
        "--optimizer", "adam", "--lr", 3e-3, "--cpu", "--seed", 3, "--num-workers", 0, "--no-epoch-checkpoints",
        "--log-format", "json", "--log-interval", 2, *extra,
    ]  # fmt: skip


def architecture(name: str) -> list[Any]:
    """The tiny geometry of stock BART or ours."""
    sizes = {"encoder_layers": 3, "decoder_layers": 2, "encoder_embed_dim": 24, "encoder_ffn_embed_dim": 40}
    flags = [word for key, size in sizes.items() for word in (f"--{key.replace('_', '-')}", size)]
    return ["--arch", name, *flags, "--encoder-attention-heads", 3, "--decoder-attention-heads", 2]

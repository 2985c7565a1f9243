"""What a worker process needs to know, and the inputs all of them get. No torch here: CTranslate2's worker has none."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

#: fairseq's special tokens; Hugging Face's BART has the same.
BOS, PAD, EOS, SPECIALS = 0, 1, 2, 4


@dataclass(frozen=True)
class Shape:
    """A size of BART: encoder and decoder have as many layers, of the same sizes."""

    layers: int
    dim: int
    ffn_dim: int
    heads: int
    vocabulary: int


#: The last is for tests.
GEOMETRIES = {
    "large": Shape(layers=12, dim=1024, ffn_dim=4096, heads=16, vocabulary=50264),
    "base": Shape(layers=6, dim=768, ffn_dim=3072, heads=12, vocabulary=50264),
    "tiny": Shape(layers=2, dim=64, ffn_dim=256, heads=4, vocabulary=1000),
}
POSITIONS = 1024  # of source and target

PRECISIONS = ("fp32", "bf16", "int8", "fp16")

#: What each system can compute with.
AVAILABLE = {
    "cpu": {
        "stock": ("fp32",),
        "ours": ("fp32", "bf16", "int8"),
        "hf": ("fp32", "bf16"),
        "ct2": ("fp32",),
        "ct2-int8": ("int8",),
    },
    "cuda": {
        "stock": ("fp32", "fp16"),
        "ours": ("fp32", "fp16"),
        "hf": ("fp32", "fp16", "bf16"),
        "ct2": ("fp32", "fp16"),
        "ct2-int8": ("int8",),
    },
}
SYSTEMS = tuple(AVAILABLE["cpu"])
TITLES = {
    "stock": "fairseq",
    "ours": "switchable",
    "hf": "Hugging Face",
    "ct2": "CTranslate2",
    "ct2-int8": "CTranslate2",
}


@dataclass(frozen=True)
class Lane:
    """One system at one precision: what gets a process of its own."""

    system: str
    precision: str

    def __str__(self) -> str:
        return f"{self.system} {self.precision}" if self.system != "ct2-int8" else self.system


@dataclass(frozen=True)
class Setup:
    """A worker's orders.

    Attributes:
        folder: where the weights are, see `weights`.
        batch: the batch sizes that will be asked for.
        src_len: source tokens, ``<s>`` and ``</s>`` among them.
        out_len: words of every output; ``</s>`` follows, so there are ``out_len + 1`` decoding steps.
    """

    system: str
    precision: str
    folder: str
    geometry: str
    batch: tuple[int, ...]
    src_len: int
    beam: int
    out_len: int
    device: str
    threads: int
    seed: int

    @property
    def steps(self) -> int:
        """Decoding steps of a generation."""
        return self.out_len + 1

    @property
    def shape(self) -> Shape:
        """The model's sizes."""
        return GEOMETRIES[self.geometry]

    @property
    def weights(self) -> Path:
        """The file of all weights, under fairseq's names."""
        return Path(self.folder) / "weights.pt"

    @property
    def converted(self) -> Path:
        """The folder of CTranslate2's own files."""
        return Path(self.folder) / "ctranslate2"

    def to_json(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Setup:
        """The inverse of `to_json`."""
        fields = json.loads(text)
        return cls(**{**fields, "batch": tuple(fields["batch"])})


def sources(setup: Setup, batch: int, length: int | None = None) -> np.ndarray:
    """``<s> random words </s>``, int64 (batch, length); a smaller batch is the beginning of a larger one."""
    rng = np.random.default_rng(setup.seed)
    tokens = rng.integers(SPECIALS, setup.shape.vocabulary, (batch, length or setup.src_len))
    tokens[:, 0], tokens[:, -1] = BOS, EOS
    return tokens


def check_case(setup: Setup) -> tuple[np.ndarray, np.ndarray]:
    """Two inputs and two random targets, int64 (2, S) and (2, T), on which all systems must agree; the targets without
    the ``</s>`` that every decoder starts with.
    """
    targets = np.random.default_rng(setup.seed + 1).integers(SPECIALS, setup.shape.vocabulary, (2, 16))
    return sources(setup, 2, min(setup.src_len, 256)), targets


def check_file(setup: Setup) -> Path:
    """Where a worker leaves what it computed for `check_case`."""
    return Path(setup.folder) / f"check-{setup.system}-{setup.precision}.npy"


def words(tokens: np.ndarray) -> list[list[str]]:
    """Rows of tokens as the dictionary writes them (`weights.dictionary`)."""
    names = {BOS: "<s>", PAD: "<pad>", EOS: "</s>"}
    return [[names.get(token, f"w{token}") for token in row] for row in tokens.tolist()]

"""What a worker process needs to know, and the inputs all of them get. No torch here: CTranslate2's worker has none."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

#: fairseq's special tokens; Hugging Face's BART has the same. Words are numbered from the last on.
BOS, PAD, EOS, SPECIALS = 0, 1, 2, 4
#: Of a language model's own tokens: those before are its special ones and bytes.
FIRST_WORD = 300


@dataclass(frozen=True)
class Shape:
    """A model's sizes: of a BART, whose encoder and decoder have as many layers, or of a LLaMA, which is one stack.

    Attributes:
        key_value_heads: of a LLaMA; None in a BART.
    """

    layers: int
    dim: int
    ffn_dim: int
    heads: int
    vocabulary: int
    key_value_heads: int | None = None

    @property
    def decoder_only(self) -> bool:
        """Whether one stack reads the source and writes."""
        return self.key_value_heads is not None

    @property
    def stacks(self) -> tuple[int, int]:
        """Layers of encoder and decoder, as `DecisionSpace` counts them."""
        return (self.layers, 0) if self.decoder_only else (self.layers, self.layers)

    @property
    def first_word(self) -> int:
        """The first token that is a word."""
        return min(FIRST_WORD, self.vocabulary // 2) if self.decoder_only else SPECIALS


#: Of BART; the last is for tests.
GEOMETRIES = {
    "large": Shape(layers=12, dim=1024, ffn_dim=4096, heads=16, vocabulary=50264),
    "base": Shape(layers=6, dim=768, ffn_dim=3072, heads=12, vocabulary=50264),
    "tiny": Shape(layers=2, dim=64, ffn_dim=256, heads=4, vocabulary=1000),
}
SMOLLM2 = Shape(layers=30, dim=576, ffn_dim=1536, heads=9, vocabulary=49152, key_value_heads=3)
POSITIONS = 1024  # of source and target


@dataclass(frozen=True)
class Lane:
    """One system at one precision: what gets a process of its own."""

    system: str
    precision: str

    def __str__(self) -> str:
        return f"{self.system} {self.precision}" if self.system != "ct2-int8" else self.system

    @classmethod
    def parse(cls, text: str) -> Lane:
        """The inverse of `str`."""
        system, _, precision = text.partition(" ")
        return cls(system, precision or "int8")


@dataclass(frozen=True)
class Backbone:
    """What is compared on a backbone, and how.

    Attributes:
        available: by device, what each system can compute with.
        reference: what all is compared with.
        source: the part of a generation before its first step.
        decisions: timed unless others are named.
    """

    available: dict[str, dict[str, tuple[str, ...]]]
    reference: Lane
    source: str
    decisions: tuple[str, ...]
    src_len: int
    beam: tuple[int, ...]

    @property
    def systems(self) -> tuple[str, ...]:
        """All that there are."""
        return tuple(self.available["cpu"])


BACKBONES = {
    "bart": Backbone(
        available={
            "cpu": {
                "stock": ("fp32",),
                "ours": ("fp32", "bf16", "int8"),
                "hf": ("fp32", "bf16"),
                "ct2": ("fp32",),
                "ct2-int8": ("int8",),
                "openvino": ("fp32", "int8"),
                "onnxruntime": ("fp32", "int8"),
            },
            "cuda": {
                "stock": ("fp32", "fp16"),
                "ours": ("fp32", "fp16"),
                "hf": ("fp32", "fp16", "bf16"),
                "ct2": ("fp32", "fp16"),
                "ct2-int8": ("int8",),
                "openvino": (),
                "onnxruntime": (),
            },
        },
        reference=Lane("stock", "fp32"),
        source="encoder",
        decisions=("keep-all", "paper_cnndm.json", "mixed.json"),
        src_len=1024,
        beam=(4,),
    ),
    "smollm2": Backbone(
        available={
            "cpu": {
                "hf": ("fp32", "bf16"),
                "ours": ("fp32", "bf16", "int8"),
                "llama.cpp": ("file", "q8_0"),
            },
            "cuda": {"hf": ("fp32", "fp16", "bf16"), "ours": ("fp32", "fp16"), "llama.cpp": ()},
        },
        reference=Lane("hf", "fp32"),
        source="prompt",
        decisions=("keep-all", "without_30_percent.json"),
        src_len=512,
        beam=(1, 4),
    ),
}
#: That can be asked for; llama.cpp has its own.
PRECISIONS = ("fp32", "bf16", "int8", "fp16")
TITLES = {
    "stock": "fairseq",
    "ours": "switchable",
    "hf": "Hugging Face",
    "ct2": "CTranslate2",
    "ct2-int8": "CTranslate2",
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
    "llama.cpp": "llama.cpp",
}


@dataclass(frozen=True)
class Setup:
    """A worker's orders.

    Attributes:
        folder: where the weights are, see `weights`.
        gguf: a language model's file; None for BART.
        batch: the batch sizes that will be asked for.
        src_len: source tokens, of BART ``<s>`` and ``</s>`` among them.
        beam: the beam sizes that will be asked for.
        out_len: words of every output; ``</s>`` follows, so there are ``out_len + 1`` decoding steps.
        texts: whether the sources are the user's texts, in `texts_file`, instead of random words.
    """

    system: str
    precision: str
    folder: str
    shape: Shape
    gguf: str | None
    batch: tuple[int, ...]
    src_len: int
    beam: tuple[int, ...]
    out_len: int
    device: str
    threads: int
    seed: int
    texts: bool = False

    @property
    def steps(self) -> int:
        """Decoding steps of a generation."""
        return self.out_len + 1

    @property
    def weights(self) -> Path:
        """The file of all weights, under fairseq's names."""
        return Path(self.folder) / "weights.pt"

    @property
    def imported(self) -> Path:
        """The folder of an imported language model."""
        return Path(self.folder) / "imported"

    @property
    def requantized(self) -> Path:
        """The file of a language model in 8 bits, for llama.cpp."""
        return Path(self.folder) / "q8_0.gguf"

    @property
    def texts_file(self) -> Path:
        """The tokens of the user's texts, as JSON, longest first."""
        return Path(self.folder) / "texts.json"

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
        lists = {name: tuple(fields[name]) for name in ("batch", "beam")}
        return cls(**{**fields, **lists, "shape": Shape(**fields["shape"])})


def sources(setup: Setup, batch: int, length: int | None = None) -> np.ndarray:
    """Random words, int64 (batch, length), for BART between ``<s>`` and ``</s>``; a smaller batch is the beginning of a
    larger one.
    """
    rng = np.random.default_rng(setup.seed)
    tokens = rng.integers(setup.shape.first_word, setup.shape.vocabulary, (batch, length or setup.src_len))
    if not setup.shape.decoder_only:
        tokens[:, 0], tokens[:, -1] = BOS, EOS
    return tokens


def batches(setup: Setup, batch: int) -> list[list[list[int]]]:
    """The inputs' tokens of a case, batch by batch: one batch of random words, or all of the user's texts by length."""
    if not setup.texts:
        return [sources(setup, batch).tolist()]
    rows = json.loads(setup.texts_file.read_text(encoding="utf-8"))
    return [rows[first : first + batch] for first in range(0, len(rows), batch)]


def padded(rows: list[list[int]], left: bool) -> np.ndarray:
    """The tokens of a batch, int64 (B, S), with `PAD` before the shorter inputs or after them."""
    width = max(map(len, rows))
    missing = ([PAD] * (width - len(row)) for row in rows)
    return np.array([pad + row if left else row + pad for row, pad in zip(rows, missing)])


def check_case(setup: Setup) -> tuple[np.ndarray, np.ndarray]:
    """Two inputs and two random targets, int64 (2, S) and (2, T), on which all systems must agree; the targets without
    the ``</s>`` that BART's decoder starts with.
    """
    targets = np.random.default_rng(setup.seed + 1).integers(setup.shape.first_word, setup.shape.vocabulary, (2, 16))
    return sources(setup, 2, min(setup.src_len, 256)), targets


def check_file(setup: Setup) -> Path:
    """Where a worker leaves what it computed for `check_case`."""
    return Path(setup.folder) / f"check-{setup.system}-{setup.precision}.npy"


def words(rows: list[list[int]]) -> list[list[str]]:
    """Tokens of inputs as the dictionary writes them (`weights.dictionary`)."""
    names = {BOS: "<s>", PAD: "<pad>", EOS: "</s>"}
    return [[names.get(token, f"w{token}") for token in row] for row in rows]

"""The fairseq commands of the quickstart, as a user would type them: one function for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..common.words import FAIRSEQ, LANGUAGES, PLUGIN, restore, schedule, sizes

USER_DIR = [*PLUGIN, "switchable_task"]
BEAM = 4


@dataclass(frozen=True)
class Settings:
    """What distinguishes one run from another; the defaults are those of a few minutes on two cores."""

    updates: int = 2000
    finetune_updates: int = 400
    seed: int = 1
    batch_size: int = 16
    finetune_batch_size: int = 32
    lr: float = 2e-3
    finetune_lr: float = 5e-4
    policy_lr: float = 2e-3
    policy_statistics_inputs: int = 1000
    layers: int = 4
    dim: int = 64
    ffn_dim: int = 256
    heads: int = 4
    max_source_positions: int = 128
    max_target_positions: int = 256
    max_len: int = 40

    @property
    def warmup(self) -> int:
        return max(1, self.updates // 10)

    @property
    def finetune_warmup(self) -> int:
        return max(1, self.finetune_updates // 10)


def preprocess(ids: Path, binary: Path, bpe_dir: Path) -> list[str]:
    """Binarize with the dictionary that belongs to the BPE."""
    dictionary = str(bpe_dir / "dict.txt")
    command = [*FAIRSEQ, "preprocess", *LANGUAGES, "--srcdict", dictionary, "--tgtdict", dictionary]
    for split in ("train", "valid", "test"):
        command += [f"--{split}pref", str(ids / f"{split}.bpe")]
    return [*command, "--destdir", str(binary), "--workers", "2"]


def fresh(settings: Settings, binary: Path, save_dir: Path) -> list[str]:
    """An untrained stock BART of our geometry: one update that changes nothing."""
    return [
        *(*FAIRSEQ, "train", str(binary), "--task", "translation", "--arch", "bart_base"),
        *("--criterion", "label_smoothed_cross_entropy"),
        *_training(settings, save_dir, batch_size=1),
        *("--lr", "0", "--max-update", "1", "--disable-validation"),
    ]


def pretrain(settings: Settings, binary: Path, start: Path, save_dir: Path) -> list[str]:
    """A small BART from its starting weights, stock fairseq."""
    return [
        *(*FAIRSEQ, "train", str(binary), "--task", "translation", "--arch", "bart_base"),
        *("--criterion", "label_smoothed_cross_entropy"),
        *_training(settings, save_dir, settings.batch_size),
        *restore(start),
        *schedule(settings.lr, settings.warmup, settings.updates),
        *("--end-learning-rate", str(settings.finetune_lr)),
    ]


def finetune_plain(settings: Settings, binary: Path, checkpoint: Path, save_dir: Path) -> list[str]:
    """The baseline: the same model trained on, without switching, by stock fairseq."""
    return [
        *(*FAIRSEQ, "train", str(binary), "--task", "translation", "--arch", "bart_base"),
        *("--criterion", "label_smoothed_cross_entropy"),
        *_finetuning(settings, checkpoint, save_dir),
    ]


def finetune_switchable(settings: Settings, binary: Path, checkpoint: Path, save_dir: Path) -> list[str]:
    """The same updates on the same batches, with a policy that learns what to skip."""
    return [
        *(*FAIRSEQ, "train", str(binary), *USER_DIR, "--arch", "switchable_bart_base"),
        *("--criterion", "lexico_policy_criterion", "--policy-lr", str(settings.policy_lr)),
        *("--policy-statistics-inputs", str(settings.policy_statistics_inputs)),
        *_finetuning(settings, checkpoint, save_dir),
    ]


def generate(settings: Settings, binary: Path, bpe_dir: Path, checkpoint: Path, results: Path) -> list[str]:
    """Beam search on the test set, as in the BART recipe for short summaries."""
    return [
        *(*FAIRSEQ, "generate", str(binary), *USER_DIR, "--path", str(checkpoint), "--gen-subset", "test"),
        *_data(settings),
        *("--beam", str(BEAM), "--max-len-a", "0", "--max-len-b", str(settings.max_len), "--no-repeat-ngram-size", "3"),
        *("--batch-size", "32", "--seed", str(settings.seed), "--scoring", "rouge", "--results-path", str(results)),
        *("--bpe", "gpt2", "--gpt2-encoder-json", str(bpe_dir / "encoder.json")),
        *("--gpt2-vocab-bpe", str(bpe_dir / "vocab.bpe")),
    ]


def _data(settings: Settings) -> list[str]:
    positions = ["--max-source-positions", str(settings.max_source_positions)]
    positions += ["--max-target-positions", str(settings.max_target_positions)]
    return [*LANGUAGES, "--truncate-source", *positions, "--num-workers", "0"]


def _training(settings: Settings, save_dir: Path, batch_size: int) -> list[str]:
    flags = ["--share-all-embeddings", "--dropout", "0"]  # far too few updates to overfit; dropout is slow on a CPU
    flags += sizes(settings.layers, settings.dim, settings.ffn_dim, settings.heads)
    return [
        *_data(settings),
        *flags,
        *("--label-smoothing", "0.1", "--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--adam-eps", "1e-8"),
        *("--clip-norm", "1.0", "--batch-size", str(batch_size), "--required-batch-size-multiple", "1"),
        *("--batch-size-valid", "64", "--seed", str(settings.seed), "--save-dir", str(save_dir)),
        *("--no-epoch-checkpoints", "--validate-interval", "1000", "--log-format", "json", "--log-interval", "50"),
    ]


def _finetuning(settings: Settings, checkpoint: Path, save_dir: Path) -> list[str]:
    return [
        *restore(checkpoint),
        *_training(settings, save_dir, settings.finetune_batch_size),
        *schedule(settings.finetune_lr, settings.finetune_warmup, settings.finetune_updates),
    ]

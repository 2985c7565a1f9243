"""The commands of this example, as a user would type them: one function for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..common.files import SPLITS
from ..common.words import FAIRSEQ, LANGUAGES, PLUGIN, schedule

SUFFIX = "\n\nSummary:"  # after the article; what follows is the summary, which begins with a space
USER_DIR = [*PLUGIN, "switchable_task"]


@dataclass(frozen=True)
class Settings:
    """What distinguishes one run from another; the defaults take half an hour to an hour on two cores."""

    updates: int = 100
    batch_size: int = 8
    lr: float = 1e-4
    policy_lr: float = 6e-3
    flops_budget: float = 0.0
    policy_statistics_inputs: int = 48
    valid_pairs: int = 48
    test_pairs: int = 200
    max_source_positions: int = 128
    max_target_positions: int = 64
    max_len: int = 40
    beam: int = 2
    seed: int = 1
    amp: bool = False

    @property
    def pairs(self) -> dict[str, int]:
        """Pairs by split: of the training set, one epoch."""
        return {"train": self.updates * self.batch_size, "valid": self.valid_pairs, "test": self.test_pairs}


def convert(gguf: Path, model: Path) -> list[str]:
    """The model as fairseq's checkpoint, dictionary and BPE."""
    return [*FAIRSEQ, "import", str(gguf), str(model), "--prompt-suffix", SUFFIX]


def encode(model: Path, text: Path, ids: Path, escape: bool) -> list[str]:
    """A file of texts as ids."""
    flags = ["--escape"] if escape else []
    return [*FAIRSEQ, "encode", "--tokenizer-json", str(model / "tokenizer.json"), *flags, str(text), str(ids)]


def preprocess(model: Path, ids: Path, binary: Path) -> list[str]:
    """Binarize with the model's dictionary."""
    dictionary = str(model / "dict.txt")
    command = [*FAIRSEQ, "preprocess", *LANGUAGES, "--srcdict", dictionary, "--joined-dictionary"]
    for split in SPLITS:
        command += [f"--{split}pref", str(ids / split)]
    return [*command, "--destdir", str(binary), "--workers", "2"]


def finetune_plain(settings: Settings, model: Path, binary: Path, save_dir: Path) -> list[str]:
    """The baseline: the same updates on the same batches, without switching."""
    return [*finetune(settings, model, binary, save_dir), "--policy-decisions", "keep-all"]


def finetune_switchable(settings: Settings, model: Path, binary: Path, save_dir: Path) -> list[str]:
    """With a policy that learns what to skip."""
    rule = ["--policy-rule", "budget", "--policy-flops-budget", str(settings.flops_budget)]
    return [
        *finetune(settings, model, binary, save_dir),
        *(rule if settings.flops_budget else []),
        *learning(settings),
    ]


def learning(settings: Settings) -> list[str]:
    """How a policy learns."""
    return [
        *("--policy-lr", str(settings.policy_lr), "--policy-cost-beam", str(settings.beam)),
        *("--policy-statistics-inputs", str(settings.policy_statistics_inputs)),
    ]


def generate(settings: Settings, model: Path, binary: Path, checkpoint: Path, results: Path, escape: bool) -> list[str]:
    """Beam search on the test set."""
    return [
        *(*FAIRSEQ, "generate", str(binary), *USER_DIR, "--path", str(checkpoint), "--gen-subset", "test"),
        *_data(settings),
        *("--beam", str(settings.beam), "--max-len-a", "0", "--max-len-b", str(settings.max_len)),
        *("--no-repeat-ngram-size", "3", "--batch-size", "16", "--seed", str(settings.seed)),
        *("--scoring", "rouge", "--results-path", str(results)),
        *("--bpe", "tokenizer_json", "--tokenizer-json", str(model / "tokenizer.json")),
        *(["--tokenizer-json-escape"] if escape else []),
    ]


def validate(settings: Settings, binary: Path, checkpoint: Path) -> list[str]:
    """The loss of the test set's references."""
    return [
        *(*FAIRSEQ, "validate", str(binary), *USER_DIR, "--path", str(checkpoint), "--valid-subset", "test"),
        *_data(settings),
        *("--batch-size", "16", "--seed", str(settings.seed), "--log-format", "json"),
    ]


def _data(settings: Settings) -> list[str]:
    positions = ["--max-source-positions", str(settings.max_source_positions)]
    positions += ["--max-target-positions", str(settings.max_target_positions)]
    return [*LANGUAGES, "--truncate-source", *positions, "--num-workers", "0", "--skip-invalid-size-inputs-valid-test"]


def finetune(settings: Settings, model: Path, binary: Path, save_dir: Path) -> list[str]:
    """What all fine-tunings have in common."""
    return [
        *(*FAIRSEQ, "train", str(binary), *USER_DIR, "--arch", "switchable_llama"),
        *("--finetune-from-model", str(model / "model.pt"), "--save-dir", str(save_dir)),
        *("--criterion", "lexico_policy_criterion"),
        *_data(settings),
        *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--adam-eps", "1e-8", "--clip-norm", "1.0"),
        *schedule(settings.lr, max(1, settings.updates // 10), settings.updates),
        *("--batch-size", str(settings.batch_size), "--required-batch-size-multiple", "1", "--dropout", "0"),
        *("--seed", str(settings.seed), "--no-epoch-checkpoints", "--no-save-optimizer-state"),
        *("--log-format", "json", "--log-interval", "5"),
        *(["--amp"] if settings.amp else []),
    ]

"""The commands of the learning check, as a user would type them: one function for each."""

from __future__ import annotations

from pathlib import Path

from ..common.words import FAIRSEQ, LANGUAGES, PLUGIN, restore, schedule, sizes

PLAIN = ["--task", "translation", "--arch", "bart_base"]
SWITCHABLE = [*PLUGIN, "switchable_task"]

LAYERS, DIM, FFN_DIM, HEADS, POSITIONS = 4, 64, 256, 4, 80
SHORT_UPDATES, PRETRAIN_UPDATES, PRETRAIN_LR, PRETRAIN_BATCH = 500, 1200, 2e-3, 64
UPDATES, LR, BATCH, POLICY_LR = 300, 5e-4, 48, 2e-3
BEAM = 1  # NLL is measured on one hypothesis, so its cost is that of one

#: What each rule is given, and one policy that is asked for any budget; Table 8 has the constant weights.
RULES = {
    "quality": ["--policy-rule", "quality"],
    "budget": ["--policy-rule", "budget", "--policy-flops-budget", "0.7"],
    "fixed": ["--policy-rule", "fixed", "--policy-lambda", "1.0"],
    "eq7": ["--policy-rule", "eq7"],
    "dial": ["--policy-rule", "quality", "--policy-flops-budget", "0.4:1.0"],
}
#: What it is asked for.
BUDGETS = ("0.5", "0.6", "0.7", "0.8", "0.9", "1.0")


def preprocess(text: Path, train: str, binary: Path, dictionary: Path | None) -> list[str]:
    """Binarize a training split and the validation split.

    Args:
        train: name of the training split.
        dictionary: of both sides; None = count it over both sides of the training split.
    """
    splits = ["--trainpref", str(text / train), "--validpref", str(text / "valid"), "--workers", "2"]
    shared = ["--srcdict", str(dictionary), "--tgtdict", str(dictionary)] if dictionary else ["--joined-dictionary"]
    return [*FAIRSEQ, "preprocess", *LANGUAGES, *splits, *shared, "--destdir", str(binary)]


def fresh(binary: Path, save_dir: Path) -> list[str]:
    """An untrained stock BART of our geometry: one update that changes nothing."""
    return [*_train(binary, PLAIN, save_dir, seed=1, batch=8), "--lr", "0", "--max-update", "1", "--disable-validation"]


def pretrain(binary: Path, start: Path, save_dir: Path, updates: int) -> list[str]:
    """A stock BART learns the task from ``start``."""
    train = _train(binary, PLAIN, save_dir, seed=1, batch=PRETRAIN_BATCH)
    return [*train, *restore(start), *schedule(PRETRAIN_LR, 50, updates)]


def finetune_plain(binary: Path, checkpoint: Path, save_dir: Path, seed: int) -> list[str]:
    """The baseline: the same model trained on, without switching."""
    return [*_train(binary, PLAIN, save_dir, seed, BATCH), *restore(checkpoint), *schedule(LR, 20, UPDATES)]


def finetune_switchable(binary: Path, checkpoint: Path, save_dir: Path, seed: int, rule: str) -> list[str]:
    """The same updates on the same batches, with a policy that learns what to skip by ``rule``."""
    model = [*SWITCHABLE, "--arch", "switchable_bart_base", "--criterion", "lexico_policy_criterion"]
    policy = ["--policy-lr", str(POLICY_LR), "--policy-cost-beam", str(BEAM), *RULES[rule]]
    train = _train(binary, model, save_dir, seed, BATCH)
    return [*train, *policy, *restore(checkpoint), *schedule(LR, 20, UPDATES)]


def validate(binary: Path, checkpoint: Path, seed: int, *decisions: str) -> list[str]:
    """Loss and cost on the validation split; ``decisions`` are the flags that say what a switchable model runs."""
    task = SWITCHABLE if decisions else ["--task", "translation"]
    return [*FAIRSEQ, "validate", str(binary), *task, *decisions, *_run(checkpoint, seed), "--valid-subset", "valid"]


def generate(binary: Path, checkpoint: Path, seed: int, switch_report: Path) -> list[str]:
    """Beam search on the validation split, for the report of what each input skips."""
    search = ["--gen-subset", "valid", "--beam", str(BEAM), "--max-len-a", "0", "--max-len-b", "10"]
    report = ["--switch-report", str(switch_report), "--quiet"]
    return [*FAIRSEQ, "generate", str(binary), *SWITCHABLE, *search, *report, *_run(checkpoint, seed)]


def _run(checkpoint: Path, seed: int) -> list[str]:
    path = ["--path", str(checkpoint), "--batch-size", "64", "--seed", str(seed)]
    return [*path, "--log-format", "json", "--log-interval", "1000", "--num-workers", "0"]


def _train(binary: Path, model: list[str], save_dir: Path, seed: int, batch: int) -> list[str]:
    positions = ["--max-source-positions", str(POSITIONS), "--max-target-positions", str(POSITIONS)]
    shape = [*positions, *sizes(LAYERS, DIM, FFN_DIM, HEADS), "--share-all-embeddings"]
    return [
        *(*FAIRSEQ, "train", str(binary), *LANGUAGES, *model, *shape),
        *("--dropout", "0", "--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", "1.0"),
        *(
            "--batch-size",
            str(batch),
            "--batch-size-valid",
            "250",
            "--required-batch-size-multiple",
            "1",
            "--seed",
            str(seed),
        ),
        *("--save-dir", str(save_dir), "--no-epoch-checkpoints", "--num-workers", "0"),
        *("--log-format", "json", "--log-interval", "50"),
    ]

"""The GLUE tasks that fairseq's recipe covers: their columns, labels and measures.

GLUE's files are tab-separated without quoting: a quotation mark is text.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError

INFERENCE = ("contradiction", "neutral", "entailment")  # the order of the classes of bart.large.mnli
ENTAILMENT = ("entailment", "not_entailment")
BINARY = ("0", "1")


@dataclass(frozen=True)
class GlueTask:
    """One task.

    Attributes:
        columns: names of the text columns in the header.
        label: name of the label's column in train and dev files.
        labels: in the order of a model's classes; empty where the label is a number (STS-B, 0 to 5).
        measures: as GLUE reports them, the first of them first.
        submission: name of the file that GLUE's server takes.
        dev: names of the dev files.
        headless: train and dev files have no header: the columns are these.
    """

    columns: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    measures: tuple[str, ...]
    submission: str
    dev: tuple[str, ...] = ("dev",)
    headless: tuple[str, ...] = ()


GLUE: dict[str, GlueTask] = {
    "MNLI": GlueTask(
        ("sentence1", "sentence2"), "gold_label", INFERENCE, ("accuracy",), "MNLI-m.tsv",
        dev=("dev_matched", "dev_mismatched"),
    ),
    "QNLI": GlueTask(("question", "sentence"), "label", ENTAILMENT, ("accuracy",), "QNLI.tsv"),
    "QQP": GlueTask(("question1", "question2"), "is_duplicate", BINARY, ("accuracy", "f1"), "QQP.tsv"),
    "RTE": GlueTask(("sentence1", "sentence2"), "label", ENTAILMENT, ("accuracy",), "RTE.tsv"),
    "SST-2": GlueTask(("sentence",), "label", BINARY, ("accuracy",), "SST-2.tsv"),
    "MRPC": GlueTask(("#1 String", "#2 String"), "Quality", BINARY, ("accuracy", "f1"), "MRPC.tsv"),
    "CoLA": GlueTask(
        ("sentence",), "label", BINARY, ("matthews", "accuracy"), "CoLA.tsv",
        headless=("source", "label", "mark", "sentence"),
    ),
    "STS-B": GlueTask(("sentence1", "sentence2"), "score", (), ("pearson", "spearman"), "STS-B.tsv"),
}  # fmt: skip

#: STS-B's scores are 0 to 5; a model is trained on their fifth, as in fairseq's recipe.
STSB_SCALE = 5.0


def glue_task(flag: str, name: str) -> GlueTask:
    """The task of a name.

    Raises:
        UserError: there is none.
    """
    if name not in GLUE:
        raise UserError(f"{flag} {name!r} is unknown; choose from {', '.join(GLUE)}")
    return GLUE[name]

"""Every option of ours, once: its flag, default, meaning and check.

fairseq keeps options in three groups, so there are three parts: the model's travel with the checkpoint, the
criterion's say how the policy learns, the task's say what is decided when a trained model runs.
`SwitchConfig` is all of them, for the options table.
"""

# No "from __future__ import annotations" here: fairseq reads the fields' types, which must not be strings.
import math
from dataclasses import dataclass, field, fields
from typing import Any, Optional, Union

from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.constants import DDP_BACKEND_CHOICES
from fairseq.tasks.sentence_prediction import SentencePredictionConfig
from fairseq.tasks.translation import TranslationConfig
from omegaconf import II, MISSING

from .decisions import DecisionSpace, check_names
from .dial import Dial
from .errors import UserError
from .rl import ESTIMATORS, RULES, BudgetRule, DialRule, Eq7Rule, FixedRule, QualityRule

TRAINING_DECISIONS = ("learned", "random", "keep-all")
HEAD_HELP = "name of the classification head to use"
REGRESSION_HELP = "the targets are numbers, not classes, as in STS-B"
RUN_DECISIONS = ("greedy", "keep-all", "random", "shuffled")


def option(default: Any, help: str) -> Any:
    """A dataclass field with fairseq's help text."""
    return field(default=default, metadata={"help": help})


def split_names(text: str) -> tuple[str, ...]:
    """Comma-separated names as a tuple."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


@dataclass
class DecisionOptions(FairseqDataclass):
    """Options of the model: the decision space and the size of the policy. Saved with the checkpoint."""

    switch_candidates: str = option("attention,ffn,token", "what may be skipped, joined by commas (section 3.1)")
    switch_scope: str = option("encoder,decoder", "where it may be skipped, joined by commas (Table 7)")
    switch_per_layer: bool = option(
        False, "decide each encoder layer from the output of the layer before it, not all from the first (Table 11)"
    )
    switch_split_attention: bool = option(
        False, "give a decoder layer's cross-attention a decision of its own; by default it goes with self-attention"
    )
    switch_policy_dim: int = option(128, "width of the policy network's hidden layer")


@dataclass
class LearningOptions(FairseqDataclass):
    """Options of the criterion: how the policy learns (section 3.3)."""

    policy_rule: str = option(
        "quality",
        "weights of the quality and cost gradients: quality (least cost within a bound on the loss), budget (best "
        "quality within --policy-flops-budget), eq7 (as printed in the paper), fixed (--policy-lambda)",
    )
    policy_lr: float = option(
        2e-4, "learning rate of the policy's own Adam; 2e-4 suits thousands of updates, 2e-3 a few hundred"
    )
    policy_estimator: str = option(
        "auto",
        "path that is tried for an input in training: local (its greedy path with one decision changed), pooled (the "
        "same, beside what all tries found together), score-function (all decisions sampled, as in the paper), auto "
        "(pooled for rules quality and budget, local for ranges of budgets, else score-function)",
    )
    policy_total_updates: int = option(
        0,
        "updates over which --policy-lr falls to 0, the last tenth of them at 0; 0 = --max-update, and constant where "
        "that is not given",
    )
    policy_quality_slack: float = option(
        0.05, "rule quality: the greedy path's loss may exceed the keep-all path's by this share of it"
    )
    policy_quality_slack_nats: float = option(0.0, "rule quality: and additionally by this many nats a token")
    policy_flops_budget: str = option(
        "0.7",
        "rule budget: share of the keep-all cost (--policy-cost) to stay within, in (0, 1]; a range such as 0.4:1.0 "
        "trains one policy for every budget in it, and --switch-budget chooses one (rule quality also learns auto)",
    )
    policy_cost: str = option(
        "flops",
        "what a path costs: flops, or a FILE of a machine's seconds, made by python -m fairseq_switchdec calibrate",
    )
    policy_lambda: float = option(0.2, "rule fixed: the constant weight of the cost (Table 8 has 0.2, 1.0, 1.5)")
    policy_decisions: str = option(
        "learned",
        "path the model is trained on: learned (what the policy tries), random (Table 8), keep-all, or a JSON FILE of "
        "forced decisions, on which a static student is validated too",
    )
    policy_random_keep: float = option(0.8, "keep probability of --policy-decisions random, in [0, 1]")
    policy_floor: float = option(
        0.02,
        "least probability with which a decision is tried (local and pooled: its least weight among the others), in "
        "[0, 0.14)",
    )
    policy_keep_all_share: float = option(
        0.25, "share of the inputs that train the model on the keep-all path and measure its loss, in [0, 1]"
    )
    policy_statistics_inputs: int = option(
        3000, "training inputs over which the policy's features are standardized before it starts to learn"
    )
    policy_cost_beam: int = option(4, "beam size for which the cost of a path is estimated in training and validation")
    seed: int = II("common.seed")
    max_update: int = II("optimization.max_update")
    find_unused_parameters: bool = II("distributed_training.find_unused_parameters")
    ddp_backend: DDP_BACKEND_CHOICES = II("distributed_training.ddp_backend")  # noqa: RUF009
    distributed_world_size: int = II("distributed_training.distributed_world_size")
    tpu: bool = II("common.tpu")


@dataclass
class SwitchOptions(FairseqDataclass):
    """Options of every task: what a trained model runs."""

    switch_decisions: str = option(
        "greedy",
        "greedy (the policy's most likely), keep-all, random, shuffled (greedy ones permuted across the inputs of the "
        "run: shows whether the policy reads its input), or a JSON FILE of forced decisions",
    )
    switch_random_keep: float = option(0.8, "keep probability of --switch-decisions random, in [0, 1]")
    switch_budget: Optional[str] = option(
        None,
        "share of the keep-all cost for greedy decisions to stay within, if the policy was trained for a range "
        "(--policy-flops-budget 0.4:1.0); auto: what rule quality chooses; a FILE: a line with one of them for each "
        "input",
    )
    switch_precision: str = option(
        "fp32",
        "numbers that generation on the CPU computes with: fp32, bf16 (linear layers and attention) or int8 (dynamic "
        "quantization of the linear layers), which also hold the embedding; on a GPU use --fp16",
    )
    switch_report: Optional[str] = option(
        None,
        "write what was skipped and saved in generation to this JSON file; with --num-shards each process writes "
        "its own (report.shard-0-of-4.json), and python -m fairseq_switchdec report merge joins them",
    )
    seed: int = II("common.seed")
    num_shards: int = II("dataset.num_shards")
    shard_id: int = II("dataset.shard_id")
    gen_subset: str = II("dataset.gen_subset")
    restore_file: str = II("checkpoint.restore_file")


@dataclass
class RunOptions(SwitchOptions):
    """Options of the task that generates: what a trained model runs in generation and validation."""

    switch_compare: int = option(
        64,
        "inputs for which --switch-report compares, before generation, the loss under the policy's decisions, under "
        "another input's and on the most frequent path: this shows whether the policy reads its input; 0: none",
    )
    switch_lookup: str = option(
        "auto",
        "with --beam 1, guess tokens from the source and verify several in one step of the decoder, which saves time "
        "where summaries copy: auto (guess where it pays), off, or how many are guessed at a time",
    )
    switch_seconds: Optional[str] = option(
        None, "FILE of this machine's seconds (python -m fairseq_switchdec calibrate), for --switch-report to show too"
    )
    switch_seconds_force: bool = option(
        False, "use --switch-seconds even if measured on another machine, or with another precision, beam or batch size"
    )
    eval_rouge: bool = option(False, "generate for the validation set and log rouge1, rouge2 and rougeL")
    eval_rouge_args: str = option(
        "{}", 'generation options of --eval-rouge as JSON, such as \'{"beam": 4, "lenpen": 2.0, "max_len_b": 140}\''
    )
    eval_rouge_bpe: Optional[str] = option(None, "BPE to decode before --eval-rouge compares words, such as gpt2")
    eval_rouge_bpe_args: str = option(
        "{}",
        'options of this BPE as JSON, such as \'{"gpt2_encoder_json": "encoder.json", "gpt2_vocab_bpe": "vocab.bpe"}\'',
    )
    eval_rouge_detok: str = option("space", "detokenizer for --eval-rouge, such as moses; space = none")
    eval_rouge_detok_args: str = option("{}", "options of that detokenizer as JSON")
    eval_rouge_remove_bpe: Optional[str] = field(
        default=None,
        metadata={"help": "BPE marks to remove for --eval-rouge, as --remove-bpe", "argparse_const": "@@ "},
    )
    eval_rouge_print_samples: bool = option(False, "print a hypothesis and its reference of each validation batch")


@dataclass
class SquadOptions(FairseqDataclass):
    """Options of the question answering task: how contexts are cut, how answers are chosen."""

    squad_window: int = option(512, "tokens of the longest input: question, part of the context, 4 special ones")
    squad_stride: int = option(128, "tokens from one window of a long context to the next")
    squad_question: int = option(64, "tokens of the longest question; longer ones are cut, with a warning")
    squad_longest_answer: int = option(30, "tokens of the longest answer that is given")
    squad_n_best: int = option(20, "candidates of each question in the n-best file")
    squad_null_threshold: float = option(
        0.0,
        "2.0: the answer is empty where the score of no answer exceeds the best answer's by more than this; "
        "squad-score --null-threshold tune finds it",
    )
    squad_version: str = option(
        "auto", "1.1: every question has an answer; 2.0: some have none; auto: as the data says"
    )


@dataclass
class LexicoPolicyCriterionConfig(LearningOptions):
    """The criterion's options: ours, those of fairseq's label-smoothed criterion and of its sentence_prediction."""

    label_smoothing: float = option(0.0, "epsilon of label smoothing, 0 = none")
    classification_head_name: str = option(
        "sentence_classification_head",
        "name of the classification head, as fairseq's criterion sentence_prediction has",
    )
    regression_target: bool = option(False, "the targets are numbers, not classes, as in STS-B")
    sentence_avg: bool = II("optimization.sentence_avg")


@dataclass
class SwitchableTaskConfig(TranslationConfig, RunOptions):
    """The task's options: the translation task's and ours."""

    skip_invalid_size_inputs_valid_test: bool = II("dataset.skip_invalid_size_inputs_valid_test")


@dataclass
class SwitchableSentencePredictionConfig(SentencePredictionConfig, SwitchOptions):
    """The options of the classification task: those of fairseq's sentence_prediction and ours.

    Two that fairseq's task looks up in its criterion are the task's own here (a flag sets both): fairseq-validate knows
    no criterion unless it is told.
    """

    classification_head_name: str = option("sentence_classification_head", HEAD_HELP)
    regression_target: bool = option(False, REGRESSION_HELP)


@dataclass
class SwitchableSquadConfig(SwitchOptions, SquadOptions):
    """The question answering task's options."""

    data: str = field(
        default=MISSING,
        metadata={"help": "folder of dict.txt, train.json and valid.json (SQuAD's format), encoder.json and vocab.bpe"},
    )
    gpt2_encoder_json: Optional[str] = option(None, "encoder.json of the BPE (default: the one in the data folder)")
    gpt2_vocab_bpe: Optional[str] = option(None, "vocab.bpe of the BPE (default: the one in the data folder)")


@dataclass
class SwitchConfig(DecisionOptions, LearningOptions, RunOptions, SquadOptions):
    """All options, for documentation."""


def fill_references(options: Any) -> None:
    """Give fairseq's defaults to the task's options that refer to other parts of its configuration, where there are
    none: fairseq builds the task of a checkpoint of an older release from that checkpoint's options alone.
    """
    defaults = {"seed": 1, "num_shards": 1, "shard_id": 0, "gen_subset": "test", "restore_file": "checkpoint_last.pt"}
    for name, default in defaults.items():
        if str(getattr(options, name)).startswith("${"):
            setattr(options, name, default)


def flag(name: str) -> str:
    """The command-line flag of a field."""
    return "--" + name.replace("_", "-")


def options_table() -> str:
    """The options as a Markdown table, as examples/OPTIONS.md shows them."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for part in (DecisionOptions, LearningOptions, RunOptions, SquadOptions):
        for item in fields(part):
            if "help" in item.metadata:  # the others mirror options of fairseq's
                default = "off" if item.default is False else "none" if item.default is None else item.default
                lines.append(f"| `{flag(item.name)}` | `{default}` | {item.metadata['help']} |")
    return "\n".join(lines)


def build_space(options: Any, encoder_layers: int, decoder_layers: int) -> DecisionSpace:
    """The decision space the model's options describe.

    Raises:
        UserError: unknown candidate or scope, or an encoder of one layer.
    """
    try:
        return DecisionSpace(
            encoder_layers,
            decoder_layers,
            split_names(options.switch_candidates),
            split_names(options.switch_scope),
            bool(options.switch_split_attention),
        )
    except ValueError as error:
        raise UserError(str(error)) from None


def flops_budgets(options: Any) -> tuple[float, float]:
    """The range that ``--policy-flops-budget`` says, from less to more; both are the same where it says one number.

    Raises:
        UserError: it is neither, or not in (0, 1].
    """
    text = str(options.policy_flops_budget)
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2):
        raise UserError(f"--policy-flops-budget {text} must be a number, or a range such as 0.4:1.0")
    for budget in parts:
        check_range("policy_flops_budget", budget, "in (0, 1]", lambda value: 0 < value <= 1)
    if len(parts) == 2 and parts[0] >= parts[1]:
        raise UserError(f"--policy-flops-budget {text} must be a range from less to more")
    return parts[0], parts[-1]


def build_dial(options: Any) -> Optional[Dial]:
    """What a policy can be asked for, by the criterion's options, which fairseq saves among a model's too.

    Raises:
        UserError: a range that is none.
    """
    if ":" not in str(getattr(options, "policy_flops_budget", "")):
        return None
    unit = "FLOPs" if getattr(options, "policy_cost", "flops") == "flops" else "seconds"
    return Dial(*flops_budgets(options), auto=options.policy_rule == "quality", unit=unit)


def build_rule(options: LearningOptions) -> Union[QualityRule, BudgetRule, DialRule, Eq7Rule, FixedRule]:
    """The weight rule that --policy-rule names, after `check_learning_options`."""
    quality, dial = QualityRule(options.policy_quality_slack, options.policy_quality_slack_nats), build_dial(options)
    if dial is not None:
        return DialRule(dial, quality)
    if options.policy_rule == "budget":
        return BudgetRule(flops_budgets(options)[0])
    if options.policy_rule == "eq7":
        return Eq7Rule()
    return quality if options.policy_rule == "quality" else FixedRule(options.policy_lambda)


def estimator(options: LearningOptions) -> str:
    """What ``--policy-estimator`` means: the rules that are printed in the paper keep its estimator."""
    if options.policy_estimator != "auto":
        return options.policy_estimator
    if options.policy_rule not in ("quality", "budget"):
        return "score-function"
    return "pooled" if build_dial(options) is None else "local"


def check_learning_options(options: LearningOptions) -> None:
    """Refuse values that cannot be meant, before anything is loaded.

    Raises:
        UserError: naming the flag and what it takes.
    """
    check_choice("policy_rule", options.policy_rule, RULES)
    check_choice("policy_estimator", options.policy_estimator, ("auto", *ESTIMATORS))
    flops_budgets(options)
    if build_dial(options) is not None:
        named = f"--policy-flops-budget {options.policy_flops_budget} is a range, which"
        if options.policy_rule not in ("quality", "budget"):
            raise UserError(f"{named} --policy-rule quality and budget can learn, {options.policy_rule} cannot")
        if options.policy_decisions != "learned":
            raise UserError(
                f"{named} --policy-decisions {options.policy_decisions} does not learn: leave one of them out"
            )
    check_range("policy_floor", options.policy_floor, "in [0, 0.14)", lambda value: 0 <= value < 0.14)
    for name in ("policy_random_keep", "policy_keep_all_share"):
        check_range(name, getattr(options, name), "in [0, 1]", lambda value: 0 <= value <= 1)
    for name in ("policy_lr", "policy_lambda", "policy_statistics_inputs", "policy_total_updates"):
        check_range(name, getattr(options, name), "0 or more", lambda value: 0 <= value < math.inf)
    for name in ("policy_quality_slack", "policy_quality_slack_nats"):
        check_range(name, getattr(options, name), "a finite number", math.isfinite)
    if (
        options.policy_decisions == "learned"
        and options.policy_rule == "quality"
        and options.policy_keep_all_share == 0
    ):
        raise UserError("--policy-keep-all-share 0 leaves --policy-rule quality without its bound: give more than 0")
    if options.policy_decisions == "learned" and options.policy_keep_all_share == 1:
        raise UserError("--policy-keep-all-share 1 leaves no input to learn the policy from: give less than 1")
    check_range("policy_cost_beam", options.policy_cost_beam, "1 or more", lambda value: value >= 1)


def check_distributed(options: LearningOptions) -> None:
    """Refuse the hardware and the one way of data-parallel training that cannot skip.

    Raises:
        UserError: naming the flag that mends it.
    """
    if options.tpu:
        raise UserError("--bf16 means a TPU to fairseq 0.12.2, and switching does not run on one: use --amp or --fp16")
    backend = str(getattr(options.ddp_backend, "value", options.ddp_backend))
    if options.distributed_world_size > 1 and backend in ("pytorch_ddp", "c10d") and not options.find_unused_parameters:
        raise UserError(
            "a sublayer that a batch skips has no gradient: add --find-unused-parameters, or --ddp-backend legacy_ddp"
        )


def check_range(name: str, value: float, expected: str, holds: Any) -> None:
    """Raise a UserError naming the flag unless ``holds(value)``."""
    if not holds(value):
        raise UserError(f"{flag(name)} {value} must be {expected}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a UserError naming the flag unless ``value`` is one of ``choices``."""
    try:
        check_names(flag(name), (value,), choices)
    except ValueError:
        raise UserError(f"{flag(name)} {value!r} is unknown; choose from {', '.join(choices)}") from None

"""The competitors' options, beside those of the plugin's task and criterion."""

# No "from __future__ import annotations" here: fairseq reads the fields' types, which must not be strings.
from dataclasses import dataclass

from fairseq_switchdec.config import LexicoPolicyCriterionConfig, SwitchableTaskConfig, option


@dataclass
class EarlyExitTaskConfig(SwitchableTaskConfig):
    """The task's options, and how steps end."""

    exit_method: str = option("calm", "calm or free")
    exit_confidence: str = option("softmax", "softmax or state")
    exit_threshold: str = option("1", "a state is trusted above it, in [0, 1]; or the file of a calibration")
    exit_layers: str = option("all", "after which a step may end: all, 5,10 or 1/3")


@dataclass
class EarlyExitCriterionConfig(LexicoPolicyCriterionConfig):
    """The criterion's options, and which layers decoding may end after."""

    exit_after: str = option("all", "layers that also learn to write, as --exit-layers names them")


@dataclass
class DistillationCriterionConfig(LexicoPolicyCriterionConfig):
    """The criterion's options, and who teaches."""

    teacher: str = option("", "checkpoint of the full model, fine-tuned")

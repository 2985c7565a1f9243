"""Learning to switch: score-function gradients, the weight rules and the policy's optimizer (paper, section 3.3)."""

from .learner import Evidence, LearnerState, PolicyLearner
from .rules import RULES, BudgetRule, Eq7Rule, FixedRule, Observation, QualityRule, Weights
from .sampling import SampledChooser
from .score_function import limited_advantages, score_function_gradients

__all__ = [
    "RULES",
    "BudgetRule",
    "Eq7Rule",
    "Evidence",
    "FixedRule",
    "LearnerState",
    "Observation",
    "PolicyLearner",
    "QualityRule",
    "SampledChooser",
    "Weights",
    "limited_advantages",
    "score_function_gradients",
]

"""Learning to switch: the policy's gradients, the weight rules and the policy's optimizer (paper, section 3.3)."""

from .exploration import ESTIMATORS, Exploration, OneDeviation, SampledPaths
from .gradients import policy_gradients
from .learner import Evidence, LearnerState, PolicyLearner
from .rules import RULES, BudgetRule, DialRule, Eq7Rule, FixedRule, Observation, QualityRule, Weights, price

__all__ = [
    "ESTIMATORS",
    "RULES",
    "BudgetRule",
    "DialRule",
    "Eq7Rule",
    "Evidence",
    "Exploration",
    "FixedRule",
    "LearnerState",
    "Observation",
    "OneDeviation",
    "PolicyLearner",
    "QualityRule",
    "SampledPaths",
    "Weights",
    "policy_gradients",
    "price",
]

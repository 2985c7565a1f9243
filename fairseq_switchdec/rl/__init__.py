"""Learning to switch: the policy's gradients, the weight rules and the policy's optimizer (paper, section 3.3)."""

from .effects import SURVEY_INPUTS, num_effects, skips
from .exploration import ESTIMATORS, LEAST_DOUBT, Exploration, OneDeviation, PooledDeviation, SampledPaths, Tries
from .gradients import policy_gradients
from .learner import Evidence, LearnerState, PolicyLearner
from .rules import RULES, BudgetRule, DialRule, Eq7Rule, FixedRule, Observation, QualityRule, Weights, price

__all__ = [
    "ESTIMATORS",
    "LEAST_DOUBT",
    "RULES",
    "SURVEY_INPUTS",
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
    "PooledDeviation",
    "QualityRule",
    "SampledPaths",
    "Tries",
    "Weights",
    "num_effects",
    "policy_gradients",
    "price",
    "skips",
]

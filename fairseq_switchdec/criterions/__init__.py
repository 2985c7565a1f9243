"""fairseq criterion ``lexico_policy_criterion``."""

from .lexico_policy_criterion import LexicoPolicyCriterion

__all__ = ["LexicoPolicyCriterion"]

"""The families that can be imported and exported."""

from __future__ import annotations

from ...errors import UserError
from .causal import GPT2, LLAMA
from .config import Config
from .encoder_decoder import BART, T5
from .family import Family

FAMILIES = (GPT2, LLAMA, T5, BART)


def family_of_config(config: Config) -> Family:
    """The family that a config.json names.

    Raises:
        UserError: it is not built.
    """
    name = config.get("model_type")
    for family in FAMILIES:
        if name in family.model_types:
            return family
    known = [model_type for family in FAMILIES for model_type in family.model_types]
    raise UserError(f"{config.path}: model_type is {name!r}, which is not built; only {', '.join(known)} are")

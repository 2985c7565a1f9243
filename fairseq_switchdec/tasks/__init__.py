"""The fairseq tasks. ``--user-dir`` imports this folder, and with it everything else that fairseq finds by name."""

from .. import criterions
from ..scoring import fairseq_scorer
from ..texts import tokenizer_json
from .switchable_sentence_prediction import SwitchableSentencePredictionTask
from .switchable_squad import SwitchableSquadTask
from .switchable_task import SwitchableTask

__all__ = [
    "SwitchableSentencePredictionTask",
    "SwitchableSquadTask",
    "SwitchableTask",
    "criterions",
    "fairseq_scorer",
    "tokenizer_json",
]

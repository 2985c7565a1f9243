"""The switchable BART, as fairseq model ``switchable_bart``."""

from ..compat import install

install()  # for `from fairseq_switchdec.models import SwitchableBARTModel` as a program's first sight of fairseq

from .. import tasks  # noqa: E402  (from_pretrained needs the task that a checkpoint names)
from .switchable_bart import SwitchableBARTModel  # noqa: E402

__all__ = ["SwitchableBARTModel", "tasks"]

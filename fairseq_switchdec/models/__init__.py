"""The switchable models, a folder a backbone; encoder and decoder of those that have both."""

from ..compat import install

install()  # for `from fairseq_switchdec.models import SwitchableBARTModel` as a program's first sight of fairseq

from .bart import SwitchableBARTModel  # noqa: E402
from .causal import SwitchableGPT2Model, SwitchableLlamaModel  # noqa: E402
from .t5 import SwitchableT5Model  # noqa: E402

__all__ = ["SwitchableBARTModel", "SwitchableGPT2Model", "SwitchableLlamaModel", "SwitchableT5Model"]

"""``--bpe tokenizer_json --tokenizer-json FILE``: fairseq's BPE over a ``tokenizer.json`` of Hugging Face's."""

# No "from __future__ import annotations" here: fairseq reads the fields' types, which must not be strings.
from dataclasses import dataclass, field
from typing import Optional

from fairseq.data.encoders import register_bpe
from fairseq.dataclass import FairseqDataclass

from ..errors import UserError
from .tokenizer import FLAG, TextTokenizer, escape, unescape


@dataclass
class TokenizerJsonConfig(FairseqDataclass):
    """The options of ``--bpe tokenizer_json``."""

    tokenizer_json: Optional[str] = field(
        default=None, metadata={"help": "tokenizer.json of the model, as Hugging Face's releases have it"}
    )
    tokenizer_json_escape: bool = field(
        default=False,
        metadata={"help": r"a text is one line, in and out: in it \n stands for a newline and \\ for a backslash"},
    )


@register_bpe("tokenizer_json", dataclass=TokenizerJsonConfig)
class TokenizerJson:
    """Texts to the decimal ids that the dictionary holds, and back.

    Raises:
        UserError: there is no such file, it is no tokenizer, or the package tokenizers is missing.
    """

    def __init__(self, cfg: TokenizerJsonConfig):
        if not cfg.tokenizer_json:
            raise UserError(f"--bpe tokenizer_json needs {FLAG} FILE, the tokenizer.json of the model")
        self.tokenizer = TextTokenizer(cfg.tokenizer_json)
        self.lines = bool(cfg.tokenizer_json_escape)

    def encode(self, text: str) -> str:
        """The ids of a text, joined by spaces; a text that spells a special token is text."""
        return self.tokenizer.encode(unescape(text) if self.lines else text)

    def decode(self, words: str) -> str:
        """The text of ids, and of fairseq's ``<unk>`` among them; special tokens are left out."""
        text = self.tokenizer.decode(words.split())
        return escape(text) if self.lines else text

    def is_beginning_of_word(self, word: str) -> bool:
        """Whether a token begins with a space where it follows another; what is no token counts as a beginning."""
        once = self.tokenizer.decode([word])
        return not once or self.tokenizer.decode([word, word])[len(once) :].startswith(" ")

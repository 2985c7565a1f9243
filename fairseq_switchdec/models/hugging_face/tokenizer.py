"""A model's tokenizer.json: the folder's own, or made of the lists that a GGUF file or an older folder has."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from .weights import damaged, package, read_json

#: How llama.cpp's "llama-bpe" cuts text before BPE: Llama 3's pattern.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class TokenizerFile(NamedTuple):
    """A tokenizer.json and the tokenizer it describes."""

    path: str
    text: str
    tokenizer: Any

    def unknown(self) -> int | None:
        """The id of its token for what it has no token for."""
        model = json.loads(self.text)["model"]
        if isinstance(model.get("unk_id"), int):
            return model["unk_id"]
        return self.tokenizer.token_to_id(model.get("unk_token") or "<unk>")

    def check_fits(self, rows: int) -> None:
        """Refuse a tokenizer of another model.

        Raises:
            UserError: a token's id is no row of the embedding.
        """
        known = self.tokenizer.get_vocab(with_added_tokens=True)
        if not known:
            raise UserError(f"{self.path} has no tokens: give the model's own tokenizer.json with --tokenizer")
        word, last = max(known.items(), key=lambda item: item[1])
        if last >= rows:
            raise UserError(
                f"{self.path} has a token {word!r} with id {last:,}, the embedding only {rows:,} rows: give the "
                "model's own tokenizer.json with --tokenizer"
            )

    def ids(self, text: str) -> list[int]:
        """A text's token ids; special tokens are those that the text names, none are added."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def adds_first(self, index: int | None) -> bool:
        """Whether it puts a token before every text."""
        ids = self.tokenizer.encode("a").ids
        return index is not None and len(ids) > 1 and ids[0] == index


def read_tokenizer(path: Path) -> TokenizerFile:
    """A tokenizer.json.

    Raises:
        UserError: it cannot be read.
    """
    tokenizers = package("tokenizers", "a tokenizer")
    read_json(path)
    text = path.read_text(encoding="utf-8")
    try:
        return TokenizerFile(str(path), text, tokenizers.Tokenizer.from_str(text))
    except Exception as error:  # the package raises nothing more special
        raise UserError(f"{path} is no tokenizer.json ({error}): name one with --tokenizer") from None


@dataclass(frozen=True)
class BpeTokens:
    """Byte-level BPE as lists.

    Attributes:
        path: where they are from, for messages.
        words: tokens in the order of their ids.
        merges: pairs, the first merged first.
        pre: how text is cut before: "gpt-2", "default" (the same), "smollm" or "llama-bpe".
        special: tokens that no text means.
        added: tokens that are found in a text before anything else is.
        unknown: the token for what has none.
        first: a token that stands before every text.
    """

    path: str
    words: list[str]
    merges: list[tuple[str, ...]]
    pre: str = "gpt-2"
    special: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    unknown: str | None = None
    first: str | None = None

    def tokenizer(self) -> TokenizerFile:
        """The tokenizer.

        Raises:
            UserError: the lists do not fit each other, or text is cut in a way that is not built.
        """
        tokenizers = package("tokenizers", "a tokenizer")
        pre_tokenizers, processors = tokenizers.pre_tokenizers, tokenizers.processors
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        pattern = pre_tokenizers.Split(tokenizers.Regex(LLAMA3_PATTERN), "isolated")
        cut = {
            "gpt-2": byte_level,
            "default": byte_level,
            "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]),
            "llama-bpe": pre_tokenizers.Sequence([pattern, whole]),
        }
        if self.pre not in cut:
            raise UserError(
                f"{self.path} cuts text before BPE as {self.pre!r}, which is not built; only {', '.join(cut)} are: "
                "give the model's tokenizer.json with --tokenizer"
            )
        vocabulary = {word: index for index, word in enumerate(self.words)}
        try:
            tokenizer = tokenizers.Tokenizer(
                tokenizers.models.BPE(
                    vocabulary, self.merges, unk_token=self.unknown, ignore_merges=self.pre == "llama-bpe"
                )
            )
        except Exception as error:  # the package raises nothing more special
            raise UserError(f"{self.path}: its tokens and merges do not fit ({error}): is it damaged?") from None
        token = tokenizers.AddedToken
        tokenizer.add_special_tokens([token(word, normalized=False, special=True) for word in self.special])
        tokenizer.add_tokens([token(word, normalized=False) for word in self.added])
        tokenizer.pre_tokenizer, tokenizer.decoder = cut[self.pre], tokenizers.decoders.ByteLevel()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        if self.first is not None:
            tokenizer.post_processor = processors.TemplateProcessing(
                single=[self.first, "$A"],
                pair=[self.first, "$A", self.first, "$B"],
                special_tokens=[(self.first, vocabulary[self.first])],
            )
        return TokenizerFile(self.path, tokenizer.to_str(pretty=True), tokenizer)


def folder_tokenizer(folder: Path, special: list[int]) -> TokenizerFile:
    """A folder's tokenizer.json, or what its vocab.json and merges.txt (GPT-2's and BART's) say.

    Args:
        special: ids of special tokens, which older files do not tell from others.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if (folder / "tokenizer.json").exists():
        return read_tokenizer(folder / "tokenizer.json")
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocab.exists() and merges.exists()):
        raise UserError(
            f"{folder} has no tokenizer.json, nor vocab.json and merges.txt: give the file with --tokenizer (the class "
            "AutoTokenizer of transformers writes one: from_pretrained, then save_pretrained)"
        )
    ids = read_json(vocab)
    if (folder / "added_tokens.json").exists():
        ids = {**ids, **read_json(folder / "added_tokens.json")}
    words = sorted(ids, key=lambda word: ids[word] if isinstance(ids[word], int) else -1)
    if [ids[word] for word in words] != list(range(len(words))):
        raise UserError(f"{vocab} does not number its tokens 0, 1, 2, ...: copy or download it again")
    try:
        lines = merges.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise damaged(merges, error) from None
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    named = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    chosen = {*named, *(words[index] for index in special if 0 <= index < len(words))}
    return BpeTokens(
        str(vocab), words, pairs, special=[w for w in words if w in chosen],
        unknown="<unk>" if "<unk>" in ids else None,
    ).tokenizer()  # fmt: skip

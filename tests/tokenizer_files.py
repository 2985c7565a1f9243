"""Tokenizers of three kinds as releases have them, trained on the README: byte-level (GPT-2), Unigram (T5), LLaMA's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support import REPO
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = {
    "byte-level": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "unigram": ["<pad>", "</s>", "<unk>", "<extra_id_0>"],
    "llama": ["<unk>", "<s>", "</s>"],
}


def texts() -> list[str]:
    """English with code, newlines and punctuation, and no special token."""
    paragraphs = (REPO / "README.md").read_text(encoding="utf-8").split("\n\n")
    names = [name for kind in SPECIAL.values() for name in kind]
    return [text for text in paragraphs if not any(name in text for name in names)]


def byte_level() -> Tokenizer:
    """GPT-2's, as SmolLM2 has it: digits by themselves, special tokens in front."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL["byte-level"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def unigram() -> Tokenizer:
    """T5's: a Unigram model that knows the names of its special tokens, and ends a text with ``</s>``."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=SPECIAL["unigram"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def llama() -> Tokenizer:
    """LLaMA's: spaces as ``▁``, one in front, bytes for unknown characters, ``<s>`` before a text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = [*SPECIAL["llama"], *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [word for text in texts() for word in text.split(" ")]
    tokenizer.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    )
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = description["added_tokens"][:3]  # the bytes are pieces as others are
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


BUILDERS = {"byte-level": byte_level, "unigram": unigram, "llama": llama}


def write_files(folder: Path) -> dict[str, Path]:
    """A tokenizer.json of each kind, made to cut and pad, with an added word that is no special token."""
    made = {}
    for kind, build in BUILDERS.items():
        tokenizer: Any = build()
        tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
        tokenizer.enable_truncation(8)
        tokenizer.enable_padding(length=8, pad_token=SPECIAL[kind][0])
        made[kind] = folder / kind / "tokenizer.json"
        made[kind].parent.mkdir()
        tokenizer.save(str(made[kind]))
    return made

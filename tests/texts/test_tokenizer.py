"""Ids and texts of ``tokenizer.json``: the library's for ordinary texts, and never a special token."""

from __future__ import annotations

import gzip
import json
import os
import random
import sys
from pathlib import Path

import pytest
from tokenizer_files import SPECIAL, texts

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.texts.tokenizer import TextTokenizer, escape, unescape

TEXTS = [
    *texts(),
    "",
    " ",
    "  two  spaces ",
    "naïve café 東京 🙂\n\ttab",
    "a\x00b",
    "x" * 5000,
    "<think> twice <think>",
]


def plain(path: Path):
    """The same file, read by the library alone."""
    tokenizer = pytest.importorskip("tokenizers").Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def numbers(words: str) -> list[int]:
    return [int(word) for word in words.split()]


def random_texts(count: int) -> list[str]:
    """Any characters that a text may hold."""
    rng = random.Random(3)
    ranges = [(1, 0x7F), (1, 0x7F), (0x80, 0x24F), (0x3000, 0xD7FF), (0xE000, 0x10FFFF)]
    return [
        "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(0, 40))) for _ in range(count)
    ]  # fmt: skip


def test_ids_are_the_librarys(files, kind):
    ours, theirs = TextTokenizer(str(files[kind])), plain(files[kind])
    for text in [*TEXTS, *random_texts(200)]:
        assert numbers(ours.encode(text)) == theirs.encode(text, add_special_tokens=False).ids, text
    assert ours.encode_batch(TEXTS) == [ours.encode(text) for text in TEXTS]


def test_texts_are_the_librarys(files, kind):
    ours, theirs = TextTokenizer(str(files[kind])), plain(files[kind])
    for text in TEXTS:
        words = ours.encode(text).split()
        assert ours.decode(words) == theirs.decode(numbers(" ".join(words))), text
    assert ours.decode(ours.encode("a text of words").split()) == "a text of words"


def test_ids_are_transformers(files, kind):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(files[kind]))
    ours = TextTokenizer(str(files[kind]))
    for text in TEXTS:
        assert numbers(ours.encode(text)) == theirs(text, add_special_tokens=False).input_ids, text


def test_byte_level_keeps_every_text(files):
    tokenizer = TextTokenizer(str(files["byte-level"]))
    for text in [*TEXTS, *random_texts(1000), *SPECIAL["byte-level"]]:
        assert tokenizer.decode(tokenizer.encode(text).split()) == text


def test_a_text_that_spells_a_special_token_is_text(files, kind):
    tokenizer, names = TextTokenizer(str(files[kind])), SPECIAL[kind]
    special = {str(plain(files[kind]).token_to_id(name)) for name in names} - {unknown(files[kind])}
    for name in names:
        for text in (name, f"a {name} b", name * 3, f"x{name}x"):
            words = tokenizer.encode(text).split()
            assert special.isdisjoint(words), text
            assert kind == "unigram" or tokenizer.decode(words) == text  # T5 has no token for "<"


def unknown(path: Path) -> str:
    """The id that stands for characters without a token, if a kind has one."""
    model = json.loads(path.read_text())["model"]
    return str(model.get("unk_id"))


def test_special_tokens_are_found_by_the_library(files, kind):
    """What the test before is about: without care they are."""
    for name in SPECIAL[kind]:
        assert plain(files[kind]).encode(f"a {name} b", add_special_tokens=False).tokens.count(name) == 1


def test_a_unigram_model_finds_them_by_itself(files):
    theirs = plain(files["unigram"])
    theirs.encode_special_tokens = True
    assert "</s>" in theirs.encode("a</s>b", add_special_tokens=False).tokens


@pytest.mark.parametrize("merges", [[["<", "s"], ["<s", ">"]], ["< s", "<s >"]], ids=["pairs", "strings"])
@pytest.mark.parametrize("ignore_merges", [False, True])
def test_a_special_token_that_merges_make(tmp_path, merges, ignore_merges):
    """And one that a whole word is, where a BPE looks for whole words first."""
    vocabulary = {"<": 0, "s": 1, ">": 2, "<s": 3, "<s>": 4}
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges, "ignore_merges": ignore_merges, "unk_token": "<s>"}
    token = {"id": 4, "content": "<s>", "special": True, "normalized": False}
    token |= {"single_word": False, "lstrip": False, "rstrip": False}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"version": "1.0", "added_tokens": [token], "model": model}))
    tokenizer = TextTokenizer(str(path))
    assert tokenizer.encode("<s><s") == "3 2 3"
    assert tokenizer.encode("s?") == "1 4"  # the unknown one is still known
    assert tokenizer.decode(["3", "4", "2"]) == "<s >"  # without a decoder, pieces are words


def test_words_that_are_no_ids(files, kind):
    """fairseq's own words, special tokens and ids beyond the vocabulary go; its marks for an unknown word stay."""
    tokenizer = TextTokenizer(str(files[kind]))
    special = [str(plain(files[kind]).token_to_id(name)) for name in SPECIAL[kind]]
    first, second = (tokenizer.encode(text).split() for text in ("one", " two"))
    noise = ["<s>", "<pad>", "</s>", "<mask>", "madeupword0000", "999999", "9" * 30, "²", *special]
    assert tokenizer.decode([*noise, *first, *noise, *second, *noise]) == tokenizer.decode([*first, *second])
    assert tokenizer.decode(noise) == tokenizer.decode([]) == ""
    for mark in ("<unk>", "<<unk>>"):
        assert tokenizer.decode([*first, mark, *second]) == tokenizer.decode([*first, *second]).replace("e", f"e{mark}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--tokenizer-json .*tokenizer.json cannot be read: No such file"),
        ("merges", "is not JSON"),
        ("[1]", "describes no model"),
        ('{"model": 4}', "describes no model"),
        ('{"model": {}}', "is no tokenizer.json that the installed tokenizers can read"),
        ('{"model": {"type": "BPE", "vocab": {}}}', "is no tokenizer.json that the installed tokenizers can read"),
        ('{"added_tokens": [4], "model": {"vocab": {}}}', "is no tokenizer.json that the installed tokenizers"),
    ],
)
def test_mistakes(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        TextTokenizer(str(path))


def test_without_the_library(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"needs the package tokenizers: pip install tokenizers"):
        TextTokenizer(str(files["llama"]))


def test_lines():
    for text in ("", "a\nb", "\\n", "\\\\n\n\\", r"\nabla", "\\"):
        assert "\n" not in escape(text)
        assert unescape(escape(text)) == text
    assert unescape(r"Ann: hi\nBob: \pi \\n") == "Ann: hi\nBob: \\pi \\n"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """The tokenizer of SmolLM2 as transformers reads it from its GGUF file, and that tokenizer's file."""
    gguf = os.environ.get("SWITCHDEC_SMOLLM2")
    if not gguf:
        pytest.skip("SWITCHDEC_SMOLLM2 names no GGUF file of SmolLM2")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(os.path.dirname(gguf), gguf_file=os.path.basename(gguf))
    path = tmp_path_factory.mktemp("smollm2") / "tokenizer.json"
    tokenizer.backend_tokenizer.save(str(path))
    return tokenizer, path


def test_smollm2_on_real_dialogues(smollm2, shared_data):
    theirs, path = smollm2
    ours = TextTokenizer(str(path))
    with gzip.open(shared_data / "summarization" / "dialogsum" / "dialogsum.train.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for _, line in zip(range(1000), file)]
    dialogues = [row["dialogue"] for row in rows]
    found = ours.encode_batch(dialogues)
    assert list(map(numbers, found)) == theirs(dialogues, add_special_tokens=False).input_ids
    assert [ours.decode(words.split()) for words in found] == dialogues
    assert ours.decode(ours.encode("<|im_end|>").split()) == "<|im_end|>"
    assert theirs.eos_token_id not in numbers(ours.encode("so<|im_end|> it ends<|endoftext|>"))

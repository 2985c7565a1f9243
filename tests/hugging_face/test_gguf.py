"""GGUF files: the same weights and tokens as the Hugging Face folder they were made of."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_files import write_gguf
from hugging_face.support import LLAMA3, TEXTS, tiny_folder

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.models.hugging_face.gguf_file import ROPE_FACTORS, GgufFile, llama3_divisors
from fairseq_switchdec.models.hugging_face.importer import Options, import_model

gguf = pytest.importorskip("gguf")
Type = gguf.GGMLQuantizationType

#: Rows of 32, as blocks of Q8_0 need them.
SIZES = dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, head_dim=16)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A llama, and its folder."""
    folder = tmp_path_factory.mktemp("llama") / "theirs"
    return tiny_folder("llama_untied", folder, **SIZES), folder


def load(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    state = torch.load(folder / "model.pt", weights_only=False)
    return vars(state["args"]), state["model"]


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0"])
def test_same_as_the_folder(kind, llama, tmp_path):
    """F32: the same checkpoint. Other types: what transformers makes of the file."""
    from transformers import AutoModelForCausalLM

    model, folder = llama
    path = write_gguf(tmp_path / "model.gguf", model, folder, kind)
    import_model(str(path), str(tmp_path / "ours"))
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf")
    reference.save_pretrained(tmp_path / "reference")
    import_model(str(tmp_path / "reference"), str(tmp_path / "expected"), Options(tokenizer=f"{folder}/tokenizer.json"))
    import_model(str(folder), str(tmp_path / "original"))
    (args, ours), (_, expected), (original_args, original) = (
        load(tmp_path / name) for name in ("ours", "expected", "original")
    )
    assert ours.keys() == expected.keys() == original.keys()
    assert all(torch.equal(value, expected[name]) for name, value in ours.items())
    worst = max((value - original[name]).abs().max().item() for name, value in ours.items())
    assert worst == 0 if kind == "F32" else 0 < worst < 0.2
    assert args == {**original_args, "norm_eps": pytest.approx(1e-5), "rope_theta": 10000.0}
    dictionaries = [(tmp_path / name / "dict.txt").read_text() for name in ("ours", "original")]
    assert dictionaries[0] == dictionaries[1]


def test_tokens(llama, tmp_path):
    """The tokenizer that is written gives the ids of the one it was made of."""
    from tokenizers import Tokenizer

    model, folder = llama
    import_model(str(write_gguf(tmp_path / "model.gguf", model, folder)), str(tmp_path / "ours"))
    found, expected = (Tokenizer.from_file(str(path / "tokenizer.json")) for path in (tmp_path / "ours", folder))
    for text in [*TEXTS, "<|im_start|>user\n"]:
        assert found.encode(text).ids == expected.encode(text).ids
        assert found.decode(found.encode(text).ids) == expected.decode(expected.encode(text).ids)


@pytest.mark.parametrize("pre", ["smollm", "llama-bpe", "default"])
def test_ways_to_cut_text(pre, llama, tmp_path):
    """Digits one by one; digits in threes, and the token that begins a text."""
    from tokenizers import Tokenizer

    model, folder = llama
    import_model(str(write_gguf(tmp_path / "m.gguf", model, folder, tokenizer_pre=pre)), str(tmp_path / "ours"))
    tokenizer = Tokenizer.from_file(str(tmp_path / "ours/tokenizer.json"))
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("in  12345 You'LL")]
    space = "Ġ"
    assert (
        pieces
        == {
            "smollm": ["in", space * 2, *"12345", f"{space}You", "'", "LL"],
            "llama-bpe": ["in", space, space, "123", "45", f"{space}You", "'LL"],
            "default": ["in", space, f"{space}12345", f"{space}You", "'", "LL"],
        }[pre]
    )
    args, _ = load(tmp_path / "ours")
    assert args["prompt_prefix"] == ("<s>" if pre == "llama-bpe" else "")
    assert (tokenizer.encode("a").tokens[0] == "<|begin|>") == (pre == "llama-bpe")


def test_rope_scaling(llama, tmp_path):
    """Linear scaling is a number; Llama 3's is a tensor of divisors, of which only its own formula is taken."""
    model, folder = llama
    path = write_gguf(
        tmp_path / "linear.gguf", model, folder, **{"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    )
    assert GgufFile(path).config()["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    scaling = {**LLAMA3, "factor": 32.0, "original_max_position_embeddings": 8192}
    divisors = llama3_divisors(500000.0, 16, scaling)
    options = {"rope.freq_base": 500000.0, "tensors": {ROPE_FACTORS: divisors.numpy()}}
    path = write_gguf(tmp_path / "llama3.gguf", model, folder, **options)
    assert GgufFile(path).config()["rope_scaling"] == scaling
    import_model(str(path), str(tmp_path / "ours"))
    assert json.loads(load(tmp_path / "ours")[0]["rope_scaling"]) == scaling
    options["tensors"] = {ROPE_FACTORS: (divisors * 1.1).numpy()}
    with pytest.raises(UserError, match="in another way than Llama 3.1"):
        GgufFile(write_gguf(tmp_path / "other.gguf", model, folder, **options)).config()


def test_divisors_are_those_of_transformers():
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {**LLAMA3, "factor": 32.0, "original_max_position_embeddings": 8192}
    config = LlamaConfig(hidden_size=64, num_attention_heads=1, rope_theta=500000.0, rope_scaling=scaling)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 500000.0 ** -(torch.arange(0, 64, 2) / 64)
    found = llama3_divisors(500000.0, 64, scaling)
    torch.testing.assert_close(found, plain / scaled)
    assert found.min() == 1 and math.isclose(found.max(), 32, rel_tol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "qwen2"}, "holds a model 'qwen2'; of GGUF files only 'llama' is built"),
        ({"expert_count": 8}, "a mixture of experts"),
        ({"attention.sliding_window": 512}, r"llama\.attention\.sliding_window is 512, which is not built"),
        ({"rope.dimension_count": 8}, "not a head's 16 dimensions"),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0}, "scaled by 'yarn', which is not built"),
        ({"tokenizer_model": "llama"}, "give the model's tokenizer.json with --tokenizer"),
        ({"tokenizer_pre": "qwen2"}, "cuts text before BPE as 'qwen2', which is not built"),
        ({"tokenizer_eos_token_id": None}, "names no eos_token_id"),
        ({"block_count": 2}, "layers\.2\.input_layernorm\.weight is unknown"),
        ({"tensors": {"blk.0.attn_q.bias": np.zeros(64, np.float32)}}, "blk.0.attn_q.bias is unknown"),
        ({"embedding_length": None}, "has no hidden_size"),
        ({"attention.head_count": [4, 4, 2]}, r"num_attention_heads is \[4, 4, 2\], not a whole number"),
        ({"tokenizer_unknown_token_id": 5000}, "unknown_token_id is 5000, of 331 tokens"),
        ({"tokenizer_unknown_token_id": "<unk>"}, "unknown_token_id is '<unk>', of 331 tokens"),
        ({"tensors": {"bias": np.zeros(64, np.float32)}}, "bias is unknown"),
    ],
)
def test_refused(changes, message, llama, tmp_path):
    model, folder = llama
    path = write_gguf(tmp_path / "model.gguf", model, folder, **changes)
    with pytest.raises(UserError, match=message):
        import_model(str(path), str(tmp_path / "ours"))
    assert not (tmp_path / "ours").exists()


def test_another_tokenizer_in_place_of_one_that_is_not_built(llama, tmp_path):
    model, folder = llama
    path = write_gguf(tmp_path / "model.gguf", model, folder, tokenizer_model="llama")
    import_model(str(path), str(tmp_path / "ours"), Options(tokenizer=str(folder / "tokenizer.json")))
    assert (tmp_path / "ours/tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_damaged_files(llama, tmp_path, monkeypatch):
    """Not GGUF at all, cut at many places, and a number format that the package cannot read."""
    model, folder = llama
    path = write_gguf(tmp_path / "model.gguf", model, folder)
    content = path.read_bytes()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"PK" + content[2:])
    with pytest.raises(UserError, match=r"broken\.gguf is no GGUF file"):
        import_model(str(broken), str(tmp_path / "ours"))
    for size in (4, 7, 30, 100, 1000, len(content) // 3, len(content) - 100):
        broken.write_bytes(content[:size])
        with pytest.raises(UserError, match="incomplete or damaged"):
            import_model(str(broken), str(tmp_path / "ours"))

    def cannot(data: Any, kind: Type) -> Any:
        raise NotImplementedError(f"Dequantization for {kind.name} is not yet implemented")

    monkeypatch.setattr(gguf, "dequantize", cannot)
    with pytest.raises(UserError, match="is of type F32, which cannot be read .*: name a file in another type"):
        import_model(str(path), str(tmp_path / "ours"))
    assert not (tmp_path / "ours").exists()

"""What a user may get wrong: one message that names it, before anything is written."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hugging_face.support import change_config, tiny_folder
from support import run_command

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.models.hugging_face import weights
from fairseq_switchdec.models.hugging_face.exporter import export_folder
from fairseq_switchdec.models.hugging_face.importer import Options, import_model

safetensors = pytest.importorskip("safetensors.torch")


def assert_refused(folder: Path, message: str, **options: Any) -> None:
    """Import fails with this message and leaves nothing behind."""
    out = folder.parent / "out"
    with pytest.raises(UserError, match=message) as caught:
        import_model(str(folder), str(out), Options(**options))
    assert str(caught.value).startswith("fairseq_switchdec: ") and not out.exists()


CONFIGS = [
    ("gpt2", {"model_type": "qwen2"}, "model_type is 'qwen2', which is not built; only gpt2, llama, mistral, t5, bart"),
    ("bart", {"model_type": "mbart"}, "model_type is 'mbart', which is not built"),
    ("t5", {"model_type": None}, "model_type is None, which is not built"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True, which is not built"),
    ("gpt2", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn is True"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False"),
    ("gpt2", {"activation_function": "tanh"}, "activation_function is 'tanh', which is not built; only gelu_new"),
    ("gpt2", {"n_head": 5}, "n_head is 5, which does not divide the model's 12 dimensions"),
    ("gpt2", {"n_layer": None}, "config.json has no n_layer"),
    ("gpt2", {"n_layer": "three"}, "n_layer is 'three', not a whole number above 0"),
    ("gpt2", {"layer_norm_epsilon": "small"}, "layer_norm_epsilon is 'small', not a number"),
    ("gpt2", {"eos_token_id": None}, "names no eos_token_id"),
    ("gpt2", {"eos_token_id": 5000}, "eos_token_id is 5000, no token of the 331"),
    ("gpt2", {"vocab_size": 300}, r"tokenizer.json has a token .* with id 330, the embedding only 300 rows"),
    ("gpt2", {"quantization_config": {"bits": 4}}, "quantization_config is .*, which is not built"),
    ("llama", {"attention_bias": True}, "attention_bias is True, which is not built"),
    ("llama", {"mlp_bias": True}, "mlp_bias is True"),
    ("llama", {"sliding_window": 4096}, "sliding_window is 4096"),
    ("llama", {"num_local_experts": 8}, "a mixture of experts"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ("llama", {"num_key_value_heads": 3}, "which does not divide the 4 attention heads"),
    ("llama", {"head_dim": 5}, "rotary positions need an even number"),
    ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "by 'yarn', which is not built; only linear"),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "scaled by 'dynamic'"),
    ("llama", {"rope_scaling": {"type": "linear"}}, "rope_scaling 'linear' has no factor"),
    ("llama", {"rope_scaling": "linear"}, "not names and values in braces"),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor is 0, not above 0"),
    ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
    ("llama", {"rope_parameters": {"rope_theta": 0}}, "rope_theta is 0, not above 0"),
    ("llama", {"rms_norm_eps": 1e400}, "rms_norm_eps is inf, not a number"),
    ("llama", {"head_dim": []}, r"head_dim is \[\], not a whole number above 0"),
    ("llama", {"model_type": "mistral", "max_position_embeddings": 32768}, "for a mistral means 4096"),
    ("gpt2", {"n_layer": 10**12}, "a model of 1,000,000,000,000 layers, and only .* tensors are there"),
    ("t5", {"feed_forward_proj": []}, r"feed_forward_proj is \[\], which is not built"),
    ("t5", {"feed_forward_proj": "gated-tanh"}, "feed_forward_proj is 'gated-tanh', which is not built"),
    ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder is False"),
    ("t5", {"decoder_start_token_id": 2}, "decoder_start_token_id is 2, not <pad>"),
    ("bart", {"normalize_before": True}, "normalize_before is True"),
    ("bart", {"tie_word_embeddings": False}, "tie_word_embeddings is False"),
    ("bart", {"activation_function": "tanh"}, "activation_function is 'tanh'"),
    ("bart", {"decoder_start_token_id": 0}, "decoder_start_token_id is 0, not </s>"),
    ("bart", {"decoder_layers": 3}, r"decoder\.layers\.2\.\S+ is missing; .*, and \d+ more"),
]  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each family."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("gpt2", "llama", "t5", "bart"):
        tiny_folder(kind, folder / kind)
    return folder


@pytest.fixture
def copy(models, tmp_path):
    """Copies a family's folder, for a test to change."""

    def make(kind: str) -> Path:
        folder = tmp_path / kind
        folder.mkdir()
        for path in (models / kind).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    return make


@pytest.mark.parametrize(("kind", "changes", "message"), CONFIGS)
def test_config(kind, changes, message, copy):
    folder = copy(kind)
    change_config(folder, **changes)
    assert_refused(folder, message)


def test_files_that_are_missing_or_damaged(copy):
    folder = copy("gpt2")
    assert_refused(folder / "nowhere", "import: there is no file .*nowhere.*nothing is downloaded")
    file = folder / "model.safetensors"
    content = file.read_bytes()
    for size in (0, 5, 100, len(content) - 10):
        file.write_bytes(content[:size])
        assert_refused(folder, r"model\.safetensors cannot be read .* is incomplete or damaged")
    file.unlink()
    assert_refused(folder, r"gpt2 has no weights: model\.safetensors or pytorch_model\.bin is needed")
    (folder / "config.json").write_text("{")
    assert_refused(folder, r"config\.json cannot be read as JSON")
    (folder / "config.json").unlink()
    assert_refused(folder, r"there is no file .*config\.json")
    assert_refused(
        folder, r"--tokenizer: there is no file .*other\.json: name a tokenizer\.json", tokenizer="other.json"
    )


def test_tokenizers(copy, models):
    folder = copy("llama")
    path = folder / "tokenizer.json"
    content = path.read_text()
    path.write_text(json.dumps({"model": {"type": "none"}}))
    assert_refused(folder, r"tokenizer\.json is no tokenizer\.json .*: name one with --tokenizer")
    path.unlink()
    assert_refused(folder, "has no tokenizer.json, nor vocab.json and merges.txt: give the file with --tokenizer")
    (folder / "merges.txt").write_text("a b\n")
    (folder / "vocab.json").write_text('{"a": 0, "b": 2}')
    assert_refused(folder, "does not number its tokens 0, 1, 2")
    (folder / "vocab.json").write_text('{"a": 0, "b": 1}')
    assert_refused(folder, "its tokens and merges do not fit")
    import_model(str(folder), str(folder / "out"), Options(tokenizer=str(models / "llama/tokenizer.json")))
    assert (folder / "out/tokenizer.json").read_text() == content


def test_tensors(copy):
    folder = copy("llama")
    file = folder / "model.safetensors"
    tensors = safetensors.load_file(file)
    name = "model.layers.1.mlp.up_proj.weight"
    for changed, message in (
        ({**tensors, name: tensors[name][:-1].clone()}, r"mlp\.up_proj\.weight is 19x24, not 20x24"),
        ({**tensors, name: tensors[name].int()}, r"mlp\.up_proj\.weight holds whole numbers"),
        ({key: value for key, value in tensors.items() if key != name}, r"mlp\.up_proj\.weight is missing"),
        ({**tensors, "model.layers.0.self_attn.q_norm.weight": torch.ones(6)}, r"self_attn\.q_norm\.weight is unknown"),
        ({**tensors, "score.weight": torch.ones(2, 24)}, r"score\.weight is unknown"),
    ):
        safetensors.save_file(changed, file)
        assert_refused(folder, message)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_values_that_are_no_numbers(copy, value):
    folder = copy("gpt2")
    file = folder / "model.safetensors"
    tensors = safetensors.load_file(file)
    tensors["transformer.h.1.attn.c_attn.weight"][3, 5] = value
    safetensors.save_file(tensors, file)
    assert_refused(folder, r"gpt2: h\.1\.attn\.c_attn\.weight holds values that are no numbers")


def test_paths_that_cannot_be_used(copy, tmp_path):
    """What the system says, in one message; folders that were made for nothing are gone."""
    folder, long = copy("gpt2"), "x" * 300
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for source, out, message in (
        (folder, tmp_path / long, "File name too long"),
        (folder, tmp_path / "loop" / "out", "loop"),
        (folder / long, tmp_path / "out", "File name too long"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            import_model(str(source), str(out))
        assert str(caught.value).startswith("fairseq_switchdec: import: ")
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}}))
    with pytest.raises(UserError, match=r"tokenizer\.json has no tokens"):
        import_model(str(folder), str(tmp_path / "a/b/c"))
    assert not (tmp_path / "a").exists()


def test_bart_with_a_bias_of_the_logits(copy):
    folder = copy("bart")
    file = folder / "model.safetensors"
    safetensors.save_file({**safetensors.load_file(file), "final_logits_bias": torch.ones(1, 331)}, file)
    assert_refused(folder, "final_logits_bias is not zero")


def test_shards(copy, tmp_path):
    model = tiny_folder("gpt2", tmp_path / "sharded")
    folder = tmp_path / "sharded"
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="8KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-20])
    assert_refused(folder, f"{shard.name} cannot be read .* is incomplete or damaged")
    shard.unlink()
    assert_refused(folder, f"index.json names {shard.name}, which is not there")
    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text())
    names["weight_map"] = {key: f"../{name}" for key, name in names["weight_map"].items()}
    index.write_text(json.dumps(names))
    assert_refused(folder, "which is not there")
    index.write_text("{}")
    assert_refused(folder, "has no weight_map")


class Hostile:
    """Runs a command where it is unpickled by a careless reader."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("run",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("own_unpickler", [True, False])
def test_pickles(copy, tmp_path, monkeypatch, zipped, own_unpickler):
    """Nothing hidden in a pytorch_model.bin is run, under any torch; what is no tensor is refused."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "OWN_UNPICKLER", own_unpickler or weights.OWN_UNPICKLER)
    folder = copy("gpt2")
    tensors = safetensors.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"

    def save(content: Any) -> None:
        torch.save(content, file, _use_new_zipfile_serialization=zipped)

    save({**tensors, "extra": Hostile()})
    assert_refused(
        folder, r"pytorch_model\.bin holds something else than tensors, and was not loaded: .*model\.safetensors"
    )
    assert not (tmp_path / "run").exists()
    save({"state_dict": tensors})
    assert_refused(folder, "holds something else than names and tensors")
    save([*tensors.values()])
    assert_refused(folder, "holds something else than names and tensors")
    save({**tensors, "transformer.wpe.weight": tensors["transformer.wpe.weight"].to_sparse()})
    assert_refused(folder, "something else than")
    save(tensors)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert_refused(folder, r"pytorch_model\.bin cannot be read .* is incomplete or damaged")
    file.write_bytes(content)
    import_model(str(folder), str(tmp_path / "out"))


def test_options(copy):
    folder = copy("gpt2")
    assert_refused(folder, r"--max-target-positions 96 is not in 1 to 95", max_target_positions=96)
    assert_refused(folder, r"--max-target-positions 0 is not", max_target_positions=0)
    assert_refused(folder, r"\d\d+ \+ \d+ tokens, and the model has 72 positions", prompt_prefix="a b c d e " * 40)
    assert_refused(folder, r"\d \+ \d\d+ tokens, and the model has 72 positions", prompt_suffix="a b c d e " * 40)
    assert_refused(folder, "--prompt-suffix is no UTF-8 text", prompt_suffix="a\udc80")
    assert_refused(folder, "--prompt-prefix is no UTF-8 text", prompt_prefix="a\udc80")
    for name, value in (("prompt_prefix", "x"), ("prompt_suffix", ""), ("max_target_positions", 9)):
        flag = f"--{name.replace('_', '-')}"
        assert_refused(
            copy("t5") if name == "prompt_prefix" else folder.parent / "t5",
            f"{flag} is for decoder-only",
            **{name: value},
        )


def test_out(copy, tmp_path):
    folder = copy("gpt2")
    import_model(str(folder), str(tmp_path / "out"))
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(UserError, match=r"out/dict\.txt exists already: name another folder, or remove it first"):
        import_model(str(folder), str(tmp_path / "out"))
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is no folder that can be written to"):
        import_model(str(folder), str(tmp_path / "file"))
    with pytest.raises(UserError, match="file is no folder that can be written to"):
        import_model(str(folder), str(tmp_path / "file/below"))
    if os.geteuid():  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(UserError, match="locked is no folder that can be written to"):
            import_model(str(folder), str(tmp_path / "locked/out"))


@pytest.mark.parametrize("package", ["safetensors", "tokenizers"])
def test_packages_that_are_not_installed(package, copy, monkeypatch):
    folder = copy("gpt2")
    monkeypatch.setitem(sys.modules, package, None)
    assert_refused(folder, rf"needs the package {package} .*: pip install {package}")


def test_gguf_is_not_installed(tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert_refused(path, r"model\.gguf needs the package gguf")


def test_the_commands_say_it_in_a_line(copy, tmp_path):
    folder = copy("gpt2")
    change_config(folder, n_layer=4)
    result = run_command("import", folder, tmp_path / "out", check=False)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert "fairseq_switchdec: " in result.stdout and "h.3.ln_1.weight is missing" in result.stdout
    result = run_command("export", folder / "config.json", tmp_path / "out", "--to", "hugging-face", check=False)
    assert result.returncode == 1 and "cannot be read as a checkpoint" in result.stdout
    import_model(str(copy("t5")), str(tmp_path / "ours"))
    result = run_command("export", tmp_path / "ours/model.pt", tmp_path / "out.pt", check=False)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert "holds a model switchable_t5, not a BART" in result.stdout and "or add --to hugging-face" in result.stdout
    result = run_command("export", folder / "config.json", tmp_path / "out", "--imported", folder, check=False)
    assert result.returncode == 1 and "--imported is for --to hugging-face" in result.stdout


def test_export(copy, tmp_path):
    import_model(str(copy("llama")), str(tmp_path / "ours"))
    path, out = tmp_path / "ours/model.pt", str(tmp_path / "out")
    state = torch.load(path, weights_only=False)

    def refused_export(message: str, imported: str | None = None, **changes: Any) -> None:
        broken = tmp_path / "broken.pt"
        torch.save({**state, **changes}, broken)
        with pytest.raises(UserError, match=message):
            export_folder(str(broken), out, imported)
        assert not Path(out).exists()

    def args(**changes: Any) -> Any:
        values = {**vars(state["args"]), **changes}
        return type(state["args"])(**{key: value for key, value in values.items() if value is not None})

    model = state["model"]
    name = "encoder.layers.1.fc1.weight"
    refused_export(
        "holds a model transformer; only switchable_gpt2", args=args(_name="transformer", arch="transformer")
    )
    refused_export("neither the checkpoint nor .* says which tokens", args=args(special_ids=None))
    refused_export("special_ids '0 0 1 -' are not ids", args=args(special_ids="0 0 1 -"))
    refused_export("lacks an option of the model .*decoder_layers", args=args(decoder_layers=None))
    refused_export(f"{name} is 40x23, not 40x24", model={**model, name: model[name][:, 1:].clone()})
    refused_export("fc3 is unknown", model={**model, "fc3": model[name]})
    refused_export(f"{name} is missing", model={key: value for key, value in model.items() if key != name})
    refused_export("has no encoder.embed_tokens.weight", model={})
    refused_export("has no options of a model", args=None)
    refused_export("--imported .* has no tokenizer.json", imported=str(tmp_path))
    for damaged in (None, {"encoder.layers.1.fc1.weight": [1.0]}):
        refused_export("has no weights: name a checkpoint of a switchable model", model=damaged)
    import_model(str(copy("gpt2")), str(tmp_path / "another"))
    refused_export("--imported .*another is the folder of another model, switchable_gpt2", str(tmp_path / "another"))
    refused_export("is the folder of another model", str(tmp_path / "ours"), args=args(special_ids="3 - 5 4"))
    (tmp_path / "words").mkdir()
    for content, message in (
        ({}, r"words/tokenizer\.json is no tokenizer\.json: copy it again"),
        ({"model": {"vocab": {"a": 400}}}, r"has 401 tokens, the embedding only \d+ rows: name .* with --imported"),
    ):
        (tmp_path / "words/tokenizer.json").write_text(json.dumps(content))
        refused_export(message, str(tmp_path / "words"))
    with pytest.raises(UserError, match=r"missing\.pt: No such file"):
        export_folder(str(tmp_path / "missing.pt"), out)
    with pytest.raises(UserError, match=r"tokenizer\.json exists already"):
        export_folder(str(path), str(tmp_path / "ours"))

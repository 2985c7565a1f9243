"""Imported models hold Hugging Face's numbers under our names; exported again, they are the same files of tensors."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.models.bart import BARTModel
from hugging_face.support import KINDS, TEXTS, change_config, family, tiny_folder
from support import run_command

from fairseq_switchdec.models import SwitchableBARTModel
from fairseq_switchdec.models.hugging_face.exporter import export_folder
from fairseq_switchdec.models.hugging_face.importer import Options, import_model
from fairseq_switchdec.models.hugging_face.vocabulary import Vocabulary

safetensors = pytest.importorskip("safetensors.torch")


def checkpoint(folder: Path) -> SimpleNamespace:
    """An imported model's options and weights."""
    state = torch.load(folder / "model.pt", weights_only=False)
    return SimpleNamespace(args=state["args"], weights=state["model"])


@pytest.fixture(scope="module", params=KINDS)
def imported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model of each kind, and what import made of it."""
    folder = tmp_path_factory.mktemp(request.param)
    model = tiny_folder(request.param, folder / "theirs")
    import_model(str(folder / "theirs"), str(folder / "ours"))
    return SimpleNamespace(
        kind=request.param, folder=folder, model=model, theirs=model.state_dict(), **vars(checkpoint(folder / "ours"))
    )


#: Which ids <s>, <pad>, </s> and <unk> have; -1 is the last one.
SPECIALS = {
    "gpt2": (None, None, -1, None), "llama": (0, None, 1, None), "t5": (None, 0, 1, 2), "bart": (0, 1, 2, 3),
}  # fmt: skip


def test_dictionary(imported):
    """Ids in decimal, ascending, without those of the special symbols; a row of the embedding for every symbol."""
    rows = imported.model.config.vocab_size
    ids = [rows - 1 if index == -1 else index for index in SPECIALS[family(imported.kind)]]
    dictionary = Dictionary.load(str(imported.folder / "ours/dict.txt"))
    assert dictionary.symbols[4:] == [str(index) for index in range(rows) if index not in ids]
    assert set(dictionary.count[4:]) == {1}
    absent = [symbol for symbol, index in zip(dictionary.symbols, ids) if index is None]
    assert imported.args.absent_symbols.split() == absent

    theirs = imported.model.get_input_embeddings().weight
    ours = imported.weights["encoder.embed_tokens.weight"]
    assert len(ours) == len(dictionary) == rows + len(absent)
    ids += [int(symbol) for symbol in dictionary.symbols[4:]]
    for row, index in zip(ours, ids):
        torch.testing.assert_close(row, torch.zeros(len(row)) if index is None else theirs[index], rtol=0, atol=0)


def test_names_and_numbers(imported):
    """All of the tensors, each by the rule that the family's documentation gives."""
    weights, theirs = imported.weights, imported.theirs
    assert all(value.dtype == torch.float32 for value in weights.values())
    untied = imported.kind in ("llama_untied", "t5_v1_1")
    assert ("decoder.output_projection.weight" in weights) == untied
    if untied:
        head = weights["decoder.output_projection.weight"]
        absent = imported.args.absent_symbols.split()
        assert head[[["<s>", "<pad>", "</s>", "<unk>"].index(symbol) for symbol in absent]].abs().max() == 0
        torch.testing.assert_close(head[-1], theirs["lm_head.weight"][-1], rtol=0, atol=0)
    expected = {
        "gpt2": {
            "encoder.layers.2.self_attn.k_proj.weight": lambda: theirs["transformer.h.2.attn.c_attn.weight"].T[12:24],
            "encoder.layers.1.self_attn.v_proj.bias": lambda: theirs["transformer.h.1.attn.c_attn.bias"][24:],
            "encoder.layers.1.self_attn.out_proj.weight": lambda: theirs["transformer.h.1.attn.c_proj.weight"].T,
            "encoder.layers.0.fc1.weight": lambda: theirs["transformer.h.0.mlp.c_fc.weight"].T,
            "encoder.layers.0.final_layer_norm.bias": lambda: theirs["transformer.h.0.ln_2.bias"],
            "encoder.embed_positions.weight": lambda: theirs["transformer.wpe.weight"],
            "encoder.layer_norm.weight": lambda: theirs["transformer.ln_f.weight"],
        },
        "llama": {
            "encoder.layers.1.fc1.weight": lambda: torch.cat(
                [theirs[f"model.layers.1.mlp.{name}_proj.weight"] for name in ("gate", "up")]
            ),
            "encoder.layers.2.self_attn.k_proj.weight": lambda: theirs["model.layers.2.self_attn.k_proj.weight"],
            "encoder.layers.0.final_layer_norm.weight": lambda: theirs[
                "model.layers.0.post_attention_layernorm.weight"
            ],
        },
        "t5": {
            "decoder.layers.1.encoder_attn.q_proj.weight": lambda: theirs[
                "decoder.block.1.layer.1.EncDecAttention.q.weight"
            ],
            "decoder.layers.1.encoder_attn_layer_norm.weight": lambda: theirs[
                "decoder.block.1.layer.1.layer_norm.weight"
            ],
            "decoder.layers.0.final_layer_norm.weight": lambda: theirs["decoder.block.0.layer.2.layer_norm.weight"],
            "encoder.layers.2.fc2.weight": lambda: theirs["encoder.block.2.layer.1.DenseReluDense.wo.weight"],
            "decoder.relative_positions.weight": lambda: theirs[
                "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            ],
            "decoder.embed_tokens.weight": lambda: weights["encoder.embed_tokens.weight"],
        },
        "bart": {"decoder.layers.1.fc1.weight": lambda: theirs["model.decoder.layers.1.fc1.weight"]},
    }  # fmt: skip
    for name, value in expected[family(imported.kind)].items():
        torch.testing.assert_close(weights[name], value().contiguous(), rtol=0, atol=0)
    if family(imported.kind) in ("llama", "t5"):
        assert not any(name.endswith("bias") for name in weights)
    if family(imported.kind) in ("t5", "bart"):  # stored once
        stored = (weights[f"{side}.embed_tokens.weight"].data_ptr() for side in ("encoder", "decoder"))
        assert len({*stored}) == 1


EXPECTED_ARGS = {
    "gpt2": dict(
        arch="switchable_gpt2", decoder_layers=3, decoder_embed_dim=12, decoder_ffn_embed_dim=20,
        decoder_attention_heads=3, decoder_kv_heads=3, decoder_head_dim=4, activation_fn="gelu_tanh", max_positions=96,
        max_target_positions=24, max_source_positions=72, dropout=0.1, prompt_prefix="",
    ),
    "llama": dict(arch="switchable_llama", norm_eps=1e-5, rope_theta=10000.0, rope_scaling="", activation_fn="silu"),
    "llama_grouped": dict(decoder_kv_heads=2, decoder_head_dim=10, rope_theta=5000.0, prompt_prefix=""),
    "llama3": dict(prompt_prefix="<s>", prompt_suffix="", share_decoder_input_output_embed=True),
    "llama_untied": dict(share_decoder_input_output_embed=False),
    "t5": dict(
        arch="switchable_t5", encoder_layers=3, decoder_layers=2, head_dim=5, relative_buckets=8,
        relative_max_distance=20, gated=False, activation_fn="relu", max_source_positions=1024,
    ),
    "t5_v1_1": dict(gated=True, activation_fn="gelu_tanh", share_decoder_input_output_embed=False),
    "bart": dict(arch="bart_large", decoder_ffn_embed_dim=28, max_target_positions=64, no_scale_embedding=True),
}  # fmt: skip


def test_options(imported):
    args = vars(imported.args)
    expected = EXPECTED_ARGS[imported.kind]
    assert {name: args.get(name) for name in expected} == expected
    task = "translation" if imported.kind == "bart" else "switchable_task"  # the latter takes BARTs of the former
    assert (args["task"], args["source_lang"], args["target_lang"]) == (task, "source", "target")
    if imported.kind == "llama3":
        assert json.loads(args["rope_scaling"]) == imported.model.config.rope_scaling


def test_export_gives_the_same_tensors_and_transformers_loads_them(imported, tmp_path):
    """Also of a checkpoint as fairseq-train writes it: with a policy, and options that say nothing of the token ids."""
    transformers = pytest.importorskip("transformers")
    state = torch.load(imported.folder / "ours/model.pt", weights_only=False)
    del state["args"].special_ids
    state["model"] |= {"encoder.policy.hidden.weight": torch.ones(3), "learner_state.updates": torch.ones(1)}
    torch.save({**state, "args": None, "cfg": {"model": state["args"]}}, tmp_path / "trained.pt")
    line = export_folder(str(tmp_path / "trained.pt"), str(tmp_path / "out"), str(imported.folder / "ours"))
    assert line.startswith(f"wrote {tmp_path / 'out'}: {type(imported.model).__name__}, ")

    before = safetensors.load_file(imported.folder / "theirs/model.safetensors")
    after = safetensors.load_file(tmp_path / "out/model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)

    classes = (transformers.AutoModelForCausalLM, transformers.AutoModelForSeq2SeqLM)
    loader = classes[imported.model.config.is_encoder_decoder]
    model, report = loader.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    tokens = torch.tensor([[5, 17, 200, 41, 9, 250], [8, 7, 30, 100, 6, 11]])
    extra = {"decoder_input_ids": tokens[:, :4]} if imported.model.config.is_encoder_decoder else {}
    with torch.no_grad():
        found, expected = (m.eval()(input_ids=tokens, **extra).logits for m in (model, imported.model))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.eos_token_id == model.config.eos_token_id is not None
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    # And once more into ours.
    import_model(str(tmp_path / "out"), str(tmp_path / "again"))
    again = checkpoint(tmp_path / "again")
    assert vars(again.args) == vars(imported.args)
    assert all(torch.equal(value, imported.weights[name]) for name, value in again.weights.items())


@pytest.mark.parametrize(("kind", "more"), [("gpt2", ("--switch-per-layer",)), ("llama3", ()), ("t5", ())])
def test_an_update_at_learning_rate_0_changes_no_tensor(kind, more, tmp_path):
    """From files to files by the real commands: import, encode, preprocess, train, export."""
    tiny_folder(kind, tmp_path / "theirs")
    ours = tmp_path / "ours"
    run_command("import", tmp_path / "theirs", ours)
    for side, words in (("source", TEXTS), ("target", TEXTS[::-1])):
        (tmp_path / side).write_text("".join(" ".join(text.split()[:3]) + "\n" for text in words))
        run_command("encode", "--tokenizer-json", ours / "tokenizer.json", tmp_path / side, tmp_path / f"train.{side}")
    languages = ("--source-lang", "source", "--target-lang", "target")
    words = [word for side in ("srcdict", "tgtdict") for word in (f"--{side}", ours / "dict.txt")]
    files = [word for split in ("train", "valid") for word in (f"--{split}pref", tmp_path / "train")]
    run_command("preprocess", *languages, *files, *words, "--destdir", tmp_path / "bin")
    model = ("--arch", f"switchable_{family(kind)}", "--finetune-from-model", ours / "model.pt", *more)
    plugin = ("--user-dir", "fairseq_switchdec", "--task", "switchable_task", "--criterion", "lexico_policy_criterion")
    learning = ("--optimizer", "adam", "--lr", 0, "--batch-size", 4, "--max-update", 1, "--disable-validation")
    run_command("train", tmp_path / "bin", *plugin, *languages, *model, *learning, "--save-dir", tmp_path, "--cpu")
    trained = tmp_path / "checkpoint_last.pt"
    assert any(name.startswith("encoder.policy.") for name in torch.load(trained, weights_only=False)["model"])
    run_command("export", trained, tmp_path / "out", "--to", "hugging-face", "--imported", ours)
    before, after = (safetensors.load_file(tmp_path / folder / "model.safetensors") for folder in ("theirs", "out"))
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_sizes_that_follow_from_others(tmp_path):
    """A LLaMA trained from scratch says 0 for a head's size."""
    tiny_folder("llama3", tmp_path / "theirs")
    import_model(str(tmp_path / "theirs"), str(tmp_path / "ours"))
    state = torch.load(tmp_path / "ours/model.pt", weights_only=False)
    expected = json.loads((tmp_path / "theirs/config.json").read_text())
    state["args"].decoder_head_dim = 0
    torch.save(state, tmp_path / "trained.pt")
    export_folder(str(tmp_path / "trained.pt"), str(tmp_path / "out"), str(tmp_path / "ours"))
    assert json.loads((tmp_path / "out/config.json").read_text())["head_dim"] == expected["head_dim"]


@pytest.mark.parametrize("layout", ["sharded", "bin", "bin_sharded", "bin_old", "half", "bare"])
@pytest.mark.parametrize("kind", ["gpt2", "llama_untied", "t5", "bart"])
def test_layouts_of_files(kind, layout, tmp_path):
    """Shards, pickles of either format, 16 bits, a model saved without its head: the same checkpoint."""
    model = tiny_folder(kind, tmp_path / "one")
    folder = tmp_path / "other"
    if layout == "half":
        model.half()
    if layout == "bare":
        model = tiny_folder(kind, folder) if kind == "llama_untied" else model.base_model if kind != "t5" else model
    options: dict[str, Any] = {"sharded": {"max_shard_size": "8KB"}, "bin_sharded": {"max_shard_size": "8KB"}}
    pickled = {"safe_serialization": False} if layout.startswith("bin") else {}
    model.save_pretrained(folder, **options.get(layout, {}), **pickled)
    if layout == "bin_old":
        torch.save(model.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (folder / "tokenizer.json").write_bytes((tmp_path / "one/tokenizer.json").read_bytes())
    assert (len([*folder.glob("*.index.json")]) == 1) == ("sharded" in layout)
    for name in ("one", "other"):
        import_model(str(tmp_path / name), str(tmp_path / f"{name}-out"))
    one, other = checkpoint(tmp_path / "one-out"), checkpoint(tmp_path / "other-out")
    assert vars(one.args) == vars(other.args) and one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        torch.testing.assert_close(
            other.weights[name], value.half().float() if layout == "half" else value, rtol=0, atol=0
        )
    if layout != "half":  # the same bytes, every time
        assert (tmp_path / "one-out/model.pt").read_bytes() == (tmp_path / "other-out/model.pt").read_bytes()


def test_half_precision_is_exported_as_it_is(tmp_path):
    tiny_folder("llama", tmp_path / "theirs")
    import_model(str(tmp_path / "theirs"), str(tmp_path / "ours"))
    state = torch.load(tmp_path / "ours/model.pt", weights_only=False)
    state["model"] = {name: value.half() for name, value in state["model"].items()}
    torch.save(state, tmp_path / "ours/half.pt")
    export_folder(str(tmp_path / "ours/half.pt"), str(tmp_path / "out"))
    assert {value.dtype for value in safetensors.load_file(tmp_path / "out/model.safetensors").values()} == {torch.half}
    assert json.loads((tmp_path / "out/config.json").read_text())["torch_dtype"] == "float16"


def test_bart_of_either_format_is_one_model(tmp_path):
    """Our hub interface and fairseq's compute with it what transformers computes; the default export reads it."""
    model = tiny_folder("bart", tmp_path / "theirs", scale_embedding=True)
    import_model(str(tmp_path / "theirs"), str(tmp_path / "ours"))
    for language in ("source", "target"):
        (tmp_path / f"ours/dict.{language}.txt").write_bytes((tmp_path / "ours/dict.txt").read_bytes())
    hubs = [
        model.from_pretrained(str(tmp_path / "ours"), bpe=None).eval() for model in (SwitchableBARTModel, BARTModel)
    ]
    source, previous = torch.tensor([[0, 9, 50, 70, 2]]), torch.tensor([[2, 0, 8, 9]])
    with torch.no_grad():
        found = [hub.model(source, torch.tensor([5]), previous)[0] for hub in hubs]
        expected = model(input_ids=source, decoder_input_ids=previous).logits
    assert expected.std() > 0.1
    for logits in found:
        torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)
    run_command("export", tmp_path / "ours/model.pt", tmp_path / "plain.pt")
    output = run_command("export", tmp_path / "plain.pt", tmp_path / "back", "--to", "hugging-face").stdout
    assert "BartForConditionalGeneration" in output and "without a tokenizer" in output
    before, after = (safetensors.load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys() and all(torch.equal(after[name], value) for name, value in before.items())


def test_extra_tensors_that_say_nothing(tmp_path):
    """Causal masks, rotary frequencies, the duplicate of a tied head: accepted, left out."""
    extra = {
        "gpt2": {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
                 "transformer.h.1.attn.masked_bias": torch.tensor(-1e4), "lm_head.weight": torch.zeros(331, 12)},
        "llama": {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3),
                  "lm_head.weight": torch.zeros(331, 24)},
        "t5": {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.ones(8, 2),
               "encoder.embed_tokens.weight": torch.zeros(333, 12)},
        "bart": {"model.encoder.version": torch.tensor([3.0]), "final_logits_bias": torch.zeros(1, 331)},
    }  # fmt: skip
    for kind, tensors in extra.items():
        tiny_folder(kind, tmp_path / kind)
        import_model(str(tmp_path / kind), str(tmp_path / f"{kind}-one"))
        file = tmp_path / kind / "model.safetensors"
        safetensors.save_file({**safetensors.load_file(file), **tensors}, file)
        import_model(str(tmp_path / kind), str(tmp_path / f"{kind}-other"))
        one, other = (tmp_path / f"{kind}-{name}/model.pt" for name in ("one", "other"))
        assert one.read_bytes() == other.read_bytes()


def test_mistral_without_a_window_is_a_llama(tmp_path):
    tiny_folder("llama", tmp_path / "theirs")
    change_config(tmp_path / "theirs", model_type="mistral", sliding_window=None)
    assert "switchable_llama" in import_model(str(tmp_path / "theirs"), str(tmp_path / "ours"))
    path = tmp_path / "theirs/config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "max_position_embeddings": 8192, "sliding_window": None})
    )
    assert "switchable_llama" in import_model(str(tmp_path / "theirs"), str(tmp_path / "longer"))


def test_prompts(tmp_path):
    """Special tokens that the text names are special; those that stand for <s> and </s> have their symbols."""
    from tokenizers import Tokenizer

    tiny_folder("llama3", tmp_path / "theirs")
    tokenizer = Tokenizer.from_file(str(tmp_path / "theirs/tokenizer.json"))
    texts = "<|begin|><|im_start|>user\n", "<|end|>\n<|im_start|>assistant\n"
    run_command(
        "import", tmp_path / "theirs", tmp_path / "ours", "--prompt-prefix", texts[0], "--prompt-suffix", texts[1],
        "--max-target-positions", 30,
    )  # fmt: skip
    args = checkpoint(tmp_path / "ours").args
    assert (args.max_source_positions, args.max_target_positions) == (66, 30)
    start = str(tokenizer.token_to_id("<|im_start|>"))
    for found, text, first in zip((args.prompt_prefix, args.prompt_suffix), texts, ("<s>", "</s>")):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert found.split() == [first, *map(str, ids[1:])] and start in found.split()
    import_model(str(tmp_path / "theirs"), str(tmp_path / "none"), Options(prompt_prefix="", prompt_suffix=""))
    assert checkpoint(tmp_path / "none").args.prompt_prefix == ""


def test_vocabulary_precedence():
    """eos wins, then bos, unk, pad; a list of ids means its first, which the importer takes."""
    found = Vocabulary.of(6, {"<s>": 2, "<pad>": 2, "</s>": 2, "<unk>": 0})
    assert found.ids == (None, None, 2, 0) and found.absent == ["<s>", "<pad>"] and found.rows == 8
    assert Vocabulary.of(6, {"<s>": 1, "<pad>": 1, "</s>": 2, "<unk>": 1}).ids == (1, None, 2, None)
    assert Vocabulary.parse(6, found.text) == found
    weight = torch.arange(12.0).view(6, 2)
    assert found.to_ours(weight)[:, 0].tolist() == [0, 0, 4, 0, 2, 6, 8, 10]
    assert torch.equal(found.to_theirs(found.to_ours(weight)), weight)


def test_older_tokenizer_files(tmp_path):
    """vocab.json and merges.txt in place of tokenizer.json, as GPT-2 and BART were released."""
    from tokenizers import Tokenizer

    for kind in ("gpt2", "bart"):
        tiny_folder(kind, tmp_path / kind)
        path = tmp_path / kind / "tokenizer.json"
        expected = Tokenizer.from_file(str(path))
        model = json.loads(path.read_text())["model"]
        path.unlink()
        (path.parent / "vocab.json").write_text(json.dumps(expected.get_vocab(with_added_tokens=True)))
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        (path.parent / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
        import_model(str(path.parent), str(tmp_path / f"{kind}-out"))
        found = Tokenizer.from_file(str(tmp_path / f"{kind}-out/tokenizer.json"))
        for text in TEXTS:
            assert found.encode(text).ids == expected.encode(text, add_special_tokens=False).ids
        special = {"gpt2": "<|endoftext|>", "bart": "<mask>"}[kind]
        assert found.encode(f"a{special}b").tokens == ["a", special, "b"]

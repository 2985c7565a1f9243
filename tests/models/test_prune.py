"""``export --prune``: a student without the layers that forced decisions skip, for stock programs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.models.bart import BARTModel
from hugging_face.support import tiny_folder
from official import write
from support import run_command

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.export import export
from fairseq_switchdec.models import SwitchableBARTModel
from fairseq_switchdec.models.hugging_face.exporter import export_folder
from fairseq_switchdec.models.hugging_face.importer import import_model


def decisions(path: Path, layers: int, *skipped: int, **changes: Any) -> str:
    """A file that skips whole layers."""
    keep = [layer not in skipped for layer in range(layers)]
    path.write_text(json.dumps({"attention_keep": keep, "ffn_keep": keep, "token_strategy": 0, **changes}))
    return str(path)


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small bart.large.cnn: 3 + 2 layers."""
    folder = tmp_path_factory.mktemp("bart")
    write("bart.large.cnn", folder)
    return folder


def test_stock_bart_computes_what_the_decisions_do(bart: Path, tmp_path: Path) -> None:
    file = decisions(tmp_path / "skip.json", 5, 1, 3)
    line = export(str(bart / "model.pt"), str(bart / "student.pt"), file)
    assert line.endswith("; 2 of 5 layers left out")
    source, previous = torch.tensor([[0, 5, 9, 23, 11, 40, 2], [0, 17, 30, 2, 1, 1, 1]]), torch.tensor([[2, 0, 5]] * 2)
    lengths = torch.tensor([7, 4])
    files = ((SwitchableBARTModel, "model.pt"), (BARTModel, "student.pt"))
    hubs = [kind.from_pretrained(str(bart), file, bpe=None) for kind, file in files]
    ours, student = (hub.model for hub in hubs)
    ours.eval(), student.eval()  # which return nothing once fairseq has prepared a model for generation
    assert len(student.encoder.layers) == 2 and len(student.decoder.layers) == 1
    with torch.no_grad():
        forced = ours.encoder.space.from_json([json.loads(Path(file).read_text())]).select([0, 0])
        expected = ours(source, lengths, previous, decisions=forced)[0]
        whole = ours(source, lengths, previous, decisions=ours.encoder.space.keep_all(2))[0]
        found = student(source, lengths, previous)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert (found - whole).abs().max() > 0.1


#: Of each architecture, layers and those that are skipped; of a T5 the one that holds the stack's positions.
STUDENTS = {"gpt2": (3, [1]), "llama_grouped": (3, [1, 2]), "t5_v1_1": (5, [2, 3]), "bart": (5, [1, 4])}


def without(model: Any, kind: str, skipped: list[int]) -> Any:
    """transformers' model without some layers."""
    if kind == "t5_v1_1":
        first, second = (block.layer[0].SelfAttention for block in model.decoder.block)
        second.relative_attention_bias, second.has_relative_attention_bias = first.relative_attention_bias, True
        stacks = [model.encoder.block, model.decoder.block]
    elif kind == "bart":
        stacks = [model.model.encoder.layers, model.model.decoder.layers]
    else:
        stacks = [model.transformer.h if kind == "gpt2" else model.model.layers]
    for layer in sorted(skipped, reverse=True):
        place = layer - 3
        del stacks[place >= 0][layer if place < 0 else place]
    return model


@pytest.mark.parametrize("kind", STUDENTS)
def test_transformers_computes_what_the_layers_that_are_left_do(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    layers, skipped = STUDENTS[kind]
    theirs = tiny_folder(kind, tmp_path / "theirs")
    import_model(str(tmp_path / "theirs"), str(tmp_path / "ours"))
    file = decisions(tmp_path / "skip.json", layers, *skipped)
    line = export_folder(str(tmp_path / "ours/model.pt"), str(tmp_path / "student"), None, file)
    assert f"; {len(skipped)} of {layers} layers left out" in line
    loader = (transformers.AutoModelForCausalLM, transformers.AutoModelForSeq2SeqLM)[theirs.config.is_encoder_decoder]
    student, report = loader.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not any(report.values()), report
    tokens = torch.tensor([[5, 17, 200, 41, 9, 250], [8, 7, 30, 100, 6, 11]])
    extra = {"decoder_input_ids": tokens[:, :4]} if theirs.config.is_encoder_decoder else {}
    with torch.no_grad():
        whole = theirs(input_ids=tokens, **extra).logits
        expected = without(theirs, kind, skipped)(input_ids=tokens, use_cache=False, **extra).logits
        found = student.eval()(input_ids=tokens, use_cache=False, **extra).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert (found - whole).abs().max() > 0.1
    import_model(str(tmp_path / "student"), str(tmp_path / "again"))  # and switchable once more


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "the list is empty"),
        ([{}, {}], "holds 2 entries: a student has one path, give one"),
        ({"token_strategy": 3}, r"drops tokens \(token_strategy\), which only a switchable model does: give 0"),
        ({"ffn_keep": [True] * 5}, "keeps a part of encoder layer 2, which only a switchable model can"),
        ({"cross_attention_keep": [False, True]}, "keeps a part of decoder layer 1, which only a switchable model can"),
        ({"attention_keep": [True] * 3}, r"a list of 5 booleans \(this model has 3 encoder and 2 decoder layers\)"),
        ({name: [False, *[True] * 4] for name in ("attention_keep", "ffn_keep")}, "skips the first encoder layer"),
        ({name: [True] * 3 + [False] * 2 for name in ("attention_keep", "ffn_keep")}, "skips all decoder layers"),
        (None, "--prune '.*' is no readable file"),
    ],
)
def test_what_cannot_be_pruned(bart: Path, tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "skip.json"
    if isinstance(content, dict):
        decisions(file, 5, 1, **content)
    elif content is not None:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=message):
        export(str(bart / "model.pt"), str(tmp_path / "student.pt"), str(file))
    assert not (tmp_path / "student.pt").exists()


def test_the_command(bart: Path, tmp_path: Path) -> None:
    file = decisions(tmp_path / "skip.json", 5, 4)
    command = ("export", bart / "model.pt", tmp_path / "student.pt", "--prune", file)
    assert re.search(r"wrote .*student\.pt: bart_large, .*; 1 of 5 layers left out", run_command(*command).stdout)

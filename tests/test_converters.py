"""Exported checkpoints through the converters of other programs, where those are installed."""

from __future__ import annotations

import importlib
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.models.bart import BARTModel
from official import write

from fairseq_switchdec.export import export

SOURCE = [0, 5, 9, 23, 11, 40, 2]


def import_or_skip(module: str, *names: str) -> list[Any]:
    """The named classes of a package."""
    try:
        return [getattr(importlib.import_module(module), name) for name in names]
    except Exception as error:  # transformers, for one, fails where torchaudio is of another release than torch
        pytest.skip(f"no {module}: {error}")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An exported bart.large.cnn, and stock fairseq's model of the file it was made from."""
    folder = tmp_path_factory.mktemp("exported")
    write("bart.large.cnn", folder, fused=True)
    export(str(folder / "model.pt"), str(folder / "exported.pt"))
    return SimpleNamespace(folder=folder, hub=BARTModel.from_pretrained(str(folder), bpe=None).eval())


def test_hugging_face(exported):
    """The steps of its convert_bart_original_pytorch_checkpoint_to_pytorch.py: names dropped, one added, strict."""
    config_class, model_class = import_or_skip("transformers", "BartConfig", "BartForConditionalGeneration")
    file = torch.load(exported.folder / "exported.pt", weights_only=False)
    args, weights = file["args"], file["model"]
    config = config_class(
        vocab_size=len(exported.hub.task.source_dictionary),
        max_position_embeddings=args.max_source_positions,
        d_model=args.encoder_embed_dim,
        encoder_layers=args.encoder_layers,
        decoder_layers=args.decoder_layers,
        encoder_attention_heads=args.encoder_attention_heads,
        decoder_attention_heads=args.decoder_attention_heads,
        encoder_ffn_dim=args.encoder_ffn_embed_dim,
        decoder_ffn_dim=args.decoder_ffn_embed_dim,
        activation_function=args.activation_fn,
        scale_embedding=not args.no_scale_embedding,
    )
    for key in ("encoder.version", "decoder.version"):
        del weights[key]
    weights["shared.weight"] = weights["decoder.embed_tokens.weight"]
    model = model_class(config).eval()
    model.model.load_state_dict(weights, strict=True)
    tokens, previous = torch.tensor([SOURCE]), torch.tensor([[2, 0, 7, 8]])
    with torch.no_grad():
        found = model(input_ids=tokens, decoder_input_ids=previous).logits
        expected = exported.hub.model(tokens, torch.tensor([len(SOURCE)]), previous)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_ctranslate2(exported, tmp_path):
    """ct2-fairseq-converter, and the scores and the greedy output of what it wrote."""
    (converter,) = import_or_skip("ctranslate2.converters", "FairseqConverter")
    (translator_class,) = import_or_skip("ctranslate2", "Translator")
    # Its newer releases ask before they unpickle the args; this file was written here.
    options = {"unsafe_deserialization"} & set(inspect.signature(converter).parameters)
    converter(str(exported.folder / "exported.pt"), str(exported.folder), **dict.fromkeys(options, True)).convert(
        str(tmp_path / "ct2")
    )
    translator = translator_class(str(tmp_path / "ct2"), compute_type="float32")
    dictionary = exported.hub.task.source_dictionary
    words = [dictionary[index] for index in SOURCE[:-1]]  # it adds </s>
    hypothesis = translator.translate_batch([words], beam_size=1, max_decoding_length=8, min_decoding_length=8)[0]
    produced = [dictionary.index(word) for word in hypothesis.hypotheses[0]]
    with torch.no_grad():
        previous = torch.tensor([[2, *produced[:-1]]])
        logits = exported.hub.model(torch.tensor([SOURCE]), torch.tensor([len(SOURCE)]), previous)[0][0]
    logits[:, 2] = -torch.inf  # no </s> before the eighth token
    assert logits.argmax(-1).tolist() == produced
    scored = translator.score_batch([words], [[dictionary[index] for index in (7, 8, 9)]])[0]
    with torch.no_grad():
        previous = torch.tensor([[2, 7, 8, 9]])
        logits = exported.hub.model(torch.tensor([SOURCE]), torch.tensor([len(SOURCE)]), previous)[0][0]
    expected = logits.log_softmax(-1).gather(1, torch.tensor([[7], [8], [9], [2]]))[:, 0]
    torch.testing.assert_close(torch.tensor(scored.log_probs), expected, rtol=0, atol=1e-4)

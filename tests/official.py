"""Checkpoints with random weights that code cannot tell from the released BART ones.

    python tests/official.py bart.large.cnn OUT [--full] [--fused] [--half] [--zip] [--dict dict.txt]

writes OUT/model.pt and the dictionaries that lie beside it. What code sees of the released files, and so what is made
here: an ``args`` Namespace of 2019 and no ``cfg``; the key names, among them ``encoder.version`` and no output
projection; one tensor for all embeddings; torch's format from before zip files; and the rows of the embeddings.
``<mask>`` is no line of a dict.txt: the denoising and classification tasks add it, so their files have a row for it.

    kind              dict.txt   + 4 specials   + <mask>   task
    bart.large          50,260         50,264     50,265   denoising
    bart.large.cnn      50,260         50,264         no   translation
    bart.large.xsum     50,260         50,264         no   translation
    bart.base           51,196         51,200     51,201   denoising
    bart.large.mnli     50,260         50,264     50,265   sentence_prediction
"""

from __future__ import annotations

import argparse
import dataclasses
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kind:
    """One of the released models."""

    arch: str
    words: int  # lines of dict.txt
    dim: int
    layers: tuple[int, int]
    heads: int
    task: str
    languages: tuple[str, str] | None = None
    classes: int = 0  # of the classification head "mnli"

    @property
    def ffn_dim(self) -> int:
        return 4 * self.dim

    @property
    def rows(self) -> int:
        """Rows of the embeddings: the words, 4 specials, and ``<mask>`` where the task adds it."""
        return self.words + 4 + (self.task != "translation")

    def small(self) -> Kind:
        """The same with few layers, narrow and with few words."""
        return dataclasses.replace(self, words=self.words - 50_210, dim=24, layers=(3, 2), heads=3)


LARGE: dict[str, Any] = dict(arch="bart_large", words=50_260, dim=1024, layers=(12, 12), heads=16)
KINDS = {
    "bart.large": Kind(**LARGE, task="denoising"),
    "bart.large.cnn": Kind(**LARGE, task="translation", languages=("source", "target")),
    "bart.large.xsum": Kind(**LARGE, task="translation", languages=("document", "summary")),
    "bart.base": Kind("bart_base", words=51_196, dim=768, layers=(6, 6), heads=12, task="denoising"),
    "bart.large.mnli": Kind(**LARGE, task="sentence_prediction", classes=3),
}
POSITIONS = 1024


def make_args(kind: Kind) -> Namespace:
    """The command line that fairseq of 2019 keeps in a checkpoint."""
    encoder_layers, decoder_layers = kind.layers
    args = Namespace(
        activation_dropout=0.0, activation_fn="gelu", adam_betas="(0.9, 0.98)", adam_eps=1e-06, adaptive_input=False,
        adaptive_softmax_cutoff=None, adaptive_softmax_dropout=0, arch=kind.arch, attention_dropout=0.1,
        best_checkpoint_metric="loss", bpe="gpt2", bucket_cap_mb=25, clip_norm=0.1, cpu=False,
        criterion="label_smoothed_cross_entropy", cross_self_attention=False, curriculum=0, data="/checkpoint/data-bin",
        dataset_impl=None, ddp_backend="no_c10d", decoder_attention_heads=kind.heads, decoder_embed_dim=kind.dim,
        decoder_embed_path=None, decoder_ffn_embed_dim=kind.ffn_dim, decoder_input_dim=kind.dim,
        decoder_layerdrop=0, decoder_layers=decoder_layers, decoder_layers_to_keep=None, decoder_learned_pos=True,
        decoder_normalize_before=False, decoder_output_dim=kind.dim, device_id=0, disable_validation=False,
        distributed_backend="nccl", distributed_init_method=None, distributed_no_spawn=True, distributed_port=19812,
        distributed_rank=0, distributed_world_size=128, dropout=0.1, encoder_attention_heads=kind.heads,
        encoder_embed_dim=kind.dim, encoder_embed_path=None, encoder_ffn_embed_dim=kind.ffn_dim, encoder_layerdrop=0,
        encoder_layers=encoder_layers, encoder_layers_to_keep=None, encoder_learned_pos=True,
        encoder_normalize_before=False, end_learning_rate=0.0, find_unused_parameters=True, fix_batches_to_gpus=False,
        force_anneal=None, fp16=True, fp16_init_scale=128, fp16_scale_tolerance=0.0, fp16_scale_window=None,
        keep_interval_updates=-1, keep_last_epochs=-1, label_smoothing=0.1, layer_wise_attention=False,
        layernorm_embedding=True, lazy_load=False, left_pad_source="True", left_pad_target="False",
        load_alignments=False, log_format="json", log_interval=10, lr=[3e-05], lr_scheduler="polynomial_decay",
        max_epoch=0, max_sentences=None, max_sentences_valid=None, max_source_positions=POSITIONS,
        max_target_positions=POSITIONS, max_tokens=2048, max_tokens_valid=2048, max_update=20000,
        maximize_best_checkpoint_metric=False, memory_efficient_fp16=False, min_loss_scale=0.0001, min_lr=-1,
        no_cross_attention=False, no_epoch_checkpoints=False, no_last_checkpoints=False, no_progress_bar=True,
        no_save=False, no_save_optimizer_state=False, no_scale_embedding=True, no_token_positional_embeddings=False,
        num_workers=4, optimizer="adam", optimizer_overrides="{}", pooler_activation_fn="tanh", pooler_dropout=0.0,
        power=1.0, raw_text=False, relu_dropout=0.0, required_batch_size_multiple=1, reset_dataloader=True,
        reset_lr_scheduler=False, reset_meters=True, reset_optimizer=True, restore_file="/checkpoint/model.pt",
        save_dir="/checkpoint/run", save_interval=1, save_interval_updates=0, seed=4, sentence_avg=False,
        share_all_embeddings=True, share_decoder_input_output_embed=True, skip_invalid_size_inputs_valid_test=True,
        task=kind.task, tensorboard_logdir="", threshold_loss_scale=None, tokenizer=None, total_num_update=20000,
        train_subset="train", truncate_source=True, update_freq=[4], upsample_primary=1, use_bmuf=False,
        use_old_adam=False, user_dir=None, valid_subset="valid", validate_interval=1, warmup_updates=500,
        weight_decay=0.01,
    )  # fmt: skip
    if kind.languages is not None:
        args.source_lang, args.target_lang = kind.languages
    if kind.task == "denoising":
        vars(args).update(
            criterion="cross_entropy", insert=0.0, mask=0.3, mask_length="span-poisson", mask_random=0.1,
            permute=0.0, permute_sentences=1.0, poisson_lambda=3.5, replace_length=1, rotate=0.0,
            sample_break_mode="complete_doc", tokens_per_sample=512,
        )  # fmt: skip
    if kind.classes:
        vars(args).update(
            add_prev_output_tokens=True, classification_head_name="mnli", criterion="sentence_prediction",
            init_token=0, max_positions=POSITIONS, no_shuffle=False, num_classes=kind.classes,
            regression_target=False, separator_token=2, truncate_sequence=False,
        )  # fmt: skip
    return args


def make_weights(kind: Kind, fused: bool, half: bool, seed: int = 7) -> dict[str, Tensor]:
    """The ``model`` entry, in the order of the released files.

    Args:
        fused: query, key and value projections of an attention in one ``in_proj_weight``, as fairseq before 0.8 did.
        half: float16, as training with --fp16 may leave it; else float32.
    """
    generator = torch.Generator().manual_seed(seed)
    # Small models need large weights for their outputs to differ between inputs.
    scale = 0.02 if kind.dim >= 768 else 0.4
    state: dict[str, Tensor] = {}

    def add(name: str, *shape: int, mean: float = 0.0) -> Tensor:
        values = torch.empty(shape).normal_(mean, scale, generator=generator)
        state[name] = values.half() if half else values
        return state[name]

    def add_linear(name: str, inputs: int, outputs: int) -> None:
        add(f"{name}.weight", outputs, inputs)
        add(f"{name}.bias", outputs)

    def add_norm(name: str) -> None:
        add(f"{name}.weight", kind.dim, mean=1.0)
        add(f"{name}.bias", kind.dim)

    def add_attention(name: str) -> None:
        for part in ("k_proj", "v_proj", "q_proj"):
            add_linear(f"{name}.{part}", kind.dim, kind.dim)
        if fused:
            for suffix in ("weight", "bias"):
                thirds = [state.pop(f"{name}.{part}.{suffix}") for part in ("q_proj", "k_proj", "v_proj")]
                state[f"{name}.in_proj_{suffix}"] = torch.cat(thirds)
        add_linear(f"{name}.out_proj", kind.dim, kind.dim)

    embeddings: Tensor | None = None
    for side, layers in zip(("encoder", "decoder"), kind.layers):
        state[f"{side}.version"] = torch.tensor([3.0])
        if embeddings is None:
            embeddings = add(f"{side}.embed_tokens.weight", kind.rows, kind.dim)
            embeddings[1] = 0  # padding
        state[f"{side}.embed_tokens.weight"] = embeddings
        add(f"{side}.embed_positions.weight", POSITIONS + 2, kind.dim)
        for layer in (f"{side}.layers.{index}" for index in range(layers)):
            add_attention(f"{layer}.self_attn")
            add_norm(f"{layer}.self_attn_layer_norm")
            if side == "decoder":
                add_attention(f"{layer}.encoder_attn")
                add_norm(f"{layer}.encoder_attn_layer_norm")
            add_linear(f"{layer}.fc1", kind.dim, kind.ffn_dim)
            add_linear(f"{layer}.fc2", kind.ffn_dim, kind.dim)
            add_norm(f"{layer}.final_layer_norm")
        add_norm(f"{side}.layernorm_embedding")
    if kind.classes:
        add_linear("classification_heads.mnli.dense", kind.dim, kind.dim)
        add_linear("classification_heads.mnli.out_proj", kind.dim, kind.classes)
    return state


def make_checkpoint(kind: Kind, fused: bool = False, half: bool = False) -> dict[str, Any]:
    """The whole file's content; the optimizer's state is taken out of released files."""
    history = {
        "criterion_name": "LabelSmoothedCrossEntropyCriterion", "optimizer_name": "FP16Optimizer",
        "lr_scheduler_state": {"best": None}, "num_updates": 20000,
    }  # fmt: skip
    return {
        "args": make_args(kind),
        "model": make_weights(kind, fused, half),
        "optimizer_history": [history],
        "extra_state": {"train_iterator": {"epoch": 5, "iterations_in_epoch": 0}, "val_loss": 3.9},
        "last_optimizer_state": None,
    }


def dictionary_lines(kind: Kind) -> list[str]:
    """GPT-2's ids and the fillers that make the size a multiple of 4, with made-up counts."""
    fillers = kind.words - 50_257 if kind.words > 50_257 else 3
    words = [str(number) for number in range(kind.words - fillers)]
    return [f"{word} 1" for word in words] + [f"madeupword{number:04d} 0" for number in range(fillers)]


def write(
    name: str, folder: Path, full: bool = False, fused: bool = False, half: bool = False, zipped: bool = False,
    dictionary: Path | None = None,
) -> Path:  # fmt: skip
    """Write a folder as a released archive unpacks to, and return its model.pt."""
    kind = KINDS[name] if full else KINDS[name].small()
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{line}\n" for line in dictionary_lines(kind)) if dictionary is None else dictionary.read_text()
    names = [f"dict.{language}.txt" for language in kind.languages or ()] or ["dict.txt"]
    if kind.classes:
        names.append("input0/dict.txt")
        (folder / "input0").mkdir(exist_ok=True)
        (folder / "label").mkdir(exist_ok=True)
        (folder / "label/dict.txt").write_text("".join(f"{label} 1\n" for label in range(kind.classes)))
    for file in names:
        (folder / file).write_text(text)
    path = folder / "model.pt"
    torch.save(make_checkpoint(kind, fused, half), path, _use_new_zipfile_serialization=zipped)
    return path


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Write a BART checkpoint with random weights in the released format.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("out", type=Path, help="folder for model.pt and the dictionaries")
    parser.add_argument("--full", action="store_true", help="the released size; default: a few thousand weights")
    parser.add_argument("--fused", action="store_true", help="in_proj_weight in place of q_proj, k_proj and v_proj")
    parser.add_argument("--half", action="store_true", help="float16")
    parser.add_argument("--zip", action="store_true", help="torch's newer file format")
    parser.add_argument("--dict", type=Path, help="dict.txt of the official GPT-2 BPE")
    options = parser.parse_args()
    path = write(
        options.kind, options.out, options.full, options.fused, options.half, options.zip, dictionary=options.dict
    )
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

"""Chooses the layers of a static student: which ones a pretrained model is fine-tuned and run without.

    python -m examples.paper.student even|influence MODEL_FOLDER BIN OUT.json --cost 0.75

*even*: layers at equal distances stay, as in shrink and fine-tune (Shleifer and Rush, 2020). *influence*: those go that
change the hidden states least, measured on validation inputs by one minus the cosine between a layer's input and output
(ShortGPT; Men et al., 2024). As many go as bring the cost of the validation inputs within the budget; the first layer
stays, as it does when a policy decides.
"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.files import write_text

from ..common.command_line import command_line
from .plan import STUDENTS

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 8


def load(model: Path, binary: Path, longest: tuple[int, int]) -> tuple[Any, list[dict[str, Any]]]:
    """The imported model, and the batches of the validation set.

    Args:
        longest: tokens of a source, which is cut, and of a target, which is left out.
    """
    import numpy as np

    from fairseq_switchdec.compat.user_dir import register_tasks_and_models
    from fairseq_switchdec.predict.command import load as load_checkpoint

    register_tasks_and_models()
    options = {"switch_decisions": "keep-all", "switch_random_keep": 1.0, "switch_precision": "fp32", "seed": 1}
    options |= {"switch_budget": None, "switch_lookup": "off", "task": "switchable_task"}
    task, loaded = load_checkpoint(Namespace(path=str(model / "model.pt"), data=str(binary), **options))
    task.cfg.truncate_source, task.cfg.max_source_positions = True, min(longest[0], loaded.max_positions()[0])
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    fitting = np.flatnonzero(dataset.tgt_sizes <= longest[1])
    order = fitting[np.argsort(dataset.src_sizes[fitting], kind="stable")]
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    return loaded, [dataset.collater([dataset[int(index)] for index in batch]) for batch in batches]


def influences(model: Any, samples: list[dict[str, Any]]) -> Tensor:
    """How much each layer changes the states that the targets are written from, float64 (L,), a mean over tokens."""
    import torch

    sums, tokens = torch.zeros(model.encoder.space.encoder_layers, dtype=torch.float64), 0
    with torch.no_grad():
        for sample in samples:
            keep_all = model.encoder.space.keep_all(len(sample["id"]))
            _, extra = model(**sample["net_input"], decisions=keep_all, return_all_hiddens=True)
            real = sample["target"].ne(model.decoder.padding_idx).transpose(0, 1)
            states = [state[real].double() for state in extra["inner_states"]]
            similar = [torch.cosine_similarity(*pair, dim=-1) for pair in zip(states, states[1:])]
            sums += torch.stack([(1 - part).sum() for part in similar])
            tokens += int(real.sum())
    return sums / tokens


def evenly(layers: int, count: int) -> set[int]:
    """Which of some layers stay, so many of them, the first and the last among them."""
    import numpy as np

    return set(np.linspace(0, layers - 1, count).round().astype(int).tolist())


def choose(kind: str, model: Any, samples: list[dict[str, Any]], budget: float, beam: int) -> dict[str, Any]:
    """The student's decisions, as a file of forced decisions has them.

    Raises:
        UserError: no student is as cheap, or the model has two stacks.
    """
    from fairseq_switchdec.cost import cost

    space = model.encoder.space
    if space.decoder_layers:
        raise UserError("students are chosen of models with one stack of layers, such as a LLaMA")
    layers = space.encoder_layers
    changes = influences(model, samples).tolist() if kind == "influence" else []
    order = sorted(range(1, layers), key=changes.__getitem__) if changes else []
    parts = [
        model.encoder.lengths(
            sample["net_input"]["src_tokens"], sample["target"].ne(model.decoder.padding_idx).sum(1), beam
        )
        for sample in samples
    ]
    for count in range(layers - 1, 0, -1):
        kept = set(range(layers)) - set(order[: layers - count]) if changes else evenly(layers, count)
        keep = [layer in kept for layer in range(layers)]
        entry: dict[str, Any] = {"attention_keep": keep, "ffn_keep": keep, "token_strategy": 0}
        decisions = space.from_json([entry])
        costs = [cost(model.geometry, decisions.select([0] * len(part.source)), part) for part in parts]
        mean = float(sum(part.sum() for part in costs) / sum(map(len, costs)))
        if mean <= budget:
            return {**entry, "cost": round(mean, 4), "influence": [round(change, 4) for change in changes]}
    raise UserError(f"--cost {budget}: a model of one layer costs more: give a larger budget")


def main() -> None:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("kind", choices=STUDENTS)
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="what import wrote")
    parser.add_argument("binary", type=Path, metavar="BIN", help="what fairseq-preprocess wrote")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--cost", type=float, required=True, help="share of the FLOPs to keep within")
    parser.add_argument("--max-source-positions", type=int, default=128, help="longer sources are cut (%(default)s)")
    parser.add_argument("--max-target-positions", type=int, default=64, help="longer ones are left out (%(default)s)")
    parser.add_argument("--beam", type=int, default=4, help="of generation, for the cost (%(default)s)")
    args = parser.parse_args()
    model, samples = load(args.model, args.binary, (args.max_source_positions, args.max_target_positions))
    found = choose(args.kind, model, samples, args.cost, args.beam)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.out, json.dumps(found, indent=1) + "\n")
    left = [str(layer) for layer, keep in enumerate(found["attention_keep"], 1) if not keep]
    print(f"wrote {args.out}: without layers {', '.join(left)}, at {found['cost']:.1%} of the FLOPs")


if __name__ == "__main__":
    main()

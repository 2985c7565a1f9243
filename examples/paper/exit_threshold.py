"""Chooses the threshold of early exits so that texts stay as the full model writes them (CALM's calibration).

    python -m examples.paper.exit_threshold OUT.json --inputs 48 --tolerance 0.25 -- BIN --task early_exit_task ...

After ``--`` come the words of ``fairseq-generate``. Going down from a threshold that trusts no state, each is tested on
validation inputs: one minus ROUGE-L between the texts with and without exits is to be at most the tolerance on average,
with 95 % confidence (Learn then Test; Angelopoulos et al., 2021). The last one that passes is chosen. Few inputs show
little: 48 that differ by 0.11 on average show a tolerance of 0.25.
"""

from __future__ import annotations

import json
import math
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_switchdec.config import check_range
from fairseq_switchdec.files import write_text

from ..common.command_line import command_line
from .plan import USER_DIR

#: In this order; the first one that fails ends the test.
THRESHOLDS = (0.999, 0.998, 0.995, 0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
RISK = 0.05
#: Below every confidence: all steps end at the first exit, for the least that this model can cost.
NOTHING = -2.0
#: With fewer inputs no threshold passes at a tolerance of 0.25, whatever they say.
FEWEST = 11


def p_value(mean: float, count: int, tolerance: float) -> float:
    """How likely so small a mean of losses in [0, 1] is, at most, if their expectation exceeds the tolerance
    (Hoeffding and Bentkus).
    """
    if mean >= tolerance:
        return 1.0
    low = mean * math.log(mean / tolerance) if mean > 0 else 0.0
    hoeffding = math.exp(-count * (low + (1 - mean) * math.log((1 - mean) / (1 - tolerance))))
    whole = math.ceil(mean * count)
    terms = (math.comb(count, k) * tolerance**k * (1 - tolerance) ** (count - k) for k in range(whole + 1))
    return min(hoeffding, math.e * sum(terms), 1.0)


class Texts:
    """What a checkpoint writes for validation inputs, at one threshold or another.

    Args:
        words: of fairseq-generate.
        inputs: how many, spread over the validation set.
    """

    def __init__(self, words: Sequence[str], inputs: int):
        import torch
        from fairseq import checkpoint_utils, options, tasks, utils
        from fairseq.dataclass.utils import convert_namespace_to_omegaconf

        utils.import_user_module(Namespace(user_dir=USER_DIR))  # before the parser asks what tasks there are
        parsed = options.parse_args_and_arch(options.get_generation_parser(), list(words))
        cfg = convert_namespace_to_omegaconf(parsed)
        self.task: Any = tasks.setup_task(cfg.task)
        (self.model,), _ = checkpoint_utils.load_model_ensemble([cfg.common_eval.path], task=self.task)
        self.move = utils.move_to_cuda if torch.cuda.is_available() and not cfg.common.cpu else lambda sample: sample
        if self.move is utils.move_to_cuda:
            self.model.cuda()
        self.model.prepare_for_inference_(cfg)
        self.task.load_dataset("valid")
        self.generator = self.task.build_generator([self.model], cfg.generation)
        dataset, (room, longest) = self.task.dataset("valid"), self.model.max_positions()
        fitting = np.flatnonzero((dataset.src_sizes <= room) & (dataset.tgt_sizes <= longest))
        chosen = fitting[np.unique(np.linspace(0, len(fitting) - 1, inputs).round().astype(int))]
        self.samples = [self.move(dataset.collater([dataset[int(index)]])) for index in chosen]

    def __call__(self, threshold: float) -> tuple[list[str], float]:
        """Each input's best text, its tokens as numbers; and the mean share of the FLOPs."""
        self.task.exits.threshold = threshold
        texts, shares = [], []
        for sample in self.samples:
            hypotheses = self.task.inference_step(self.generator, [self.model], sample)
            texts.append(" ".join(map(str, hypotheses[0][0]["tokens"].tolist())))
            tokens = sample["net_input"]["src_tokens"]
            shares.append(self.task.share(self.model, tokens, hypotheses, self.generator.beam_size))
        return texts, sum(shares) / len(shares)


def choose(write: Any, tolerance: float) -> dict[str, Any]:
    """The threshold, and what was measured on the way to it.

    Args:
        write: of a threshold, the texts and their share of the FLOPs, as `Texts`.
    """
    from fairseq_switchdec.scoring.rouge import rouge_scores

    whole, _ = write(1.0)
    _, least = write(NOTHING)
    found, curve = 1.0, []
    for threshold in THRESHOLDS:
        texts, share = write(threshold)
        losses = 1 - rouge_scores(whole, texts)[:, -1] / 100
        value = p_value(float(losses.mean()), len(texts), tolerance)
        curve.append({"threshold": threshold, "cost": share, "differs": float(losses.mean()), "p": value})
        print(f"threshold {threshold:g}: {share:.1%} of the FLOPs, texts differ by {losses.mean():.3f} (p {value:.3f})")
        if value > RISK:
            break
        found = threshold
    return {"threshold": found, "tolerance": tolerance, "inputs": len(whole), "least_cost": least, "curve": curve}


def main() -> None:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--inputs", type=int, default=48, help="of the validation set (%(default)s)")
    parser.add_argument("--tolerance", type=float, default=0.25, help="how far texts may differ (%(default)s)")
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    args: Namespace = parser.parse_args(words[:split])
    check_range("inputs", args.inputs, f"{FEWEST} or more", lambda value: value >= FEWEST)
    check_range("tolerance", args.tolerance, "in (0, 1)", lambda value: 0 < value < 1)
    found = choose(Texts(words[split + 1 :], args.inputs), args.tolerance)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.out, json.dumps(found, indent=1) + "\n")
    print(f"wrote {args.out}: threshold {found['threshold']:g}")


if __name__ == "__main__":
    main()

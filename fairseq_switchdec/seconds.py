"""The cost model in seconds: what each sublayer takes on one machine, as ``calibrate`` measured it.

At batch 1 a step's time is that of reading weights, not of multiplying, so FLOPs saved are not seconds saved. But like
FLOPs, seconds are a sum over what runs: a sublayer takes some time for running at all, some a token, and attention some
for each pair of tokens. A path's seconds are `counts` of these, each times a coefficient; `fit` finds the coefficients
from measured paths. A `Seconds` stands wherever `fairseq_switchdec.cost` takes a `Geometry`.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .cost import Geometry, Keep, Lengths
from .errors import UserError

FORMAT = 1
#: What seconds depend on beside the model.
SETTING = {"machine": str, "precision": str, "batch_size": int, "beam": int}


def counts(geometry: Geometry, keep: Keep, lengths: Lengths) -> dict[str, Tensor]:
    """What a path runs, by what it takes time for: float64 (B,) each.

    Of encoder-decoder models and of decoder-only ones. The first layer's share is in what every input takes.
    """
    steps, source, kept = lengths.target.double(), lengths.source.double(), keep.source
    own = steps * (steps + 1) / 2
    layers = geometry.encoder_layers
    attention, ffn = keep.attention[:, 1:layers].sum(1), keep.ffn[:, 1:layers].sum(1)
    found = {
        "input": torch.ones_like(source),
        "input_tokens": source,
        "input_pairs": source**2,
        "attention": attention,
        "attention_tokens": attention * kept,
        "attention_pairs": attention * kept**2,
        "ffn": ffn,
        "ffn_tokens": ffn * kept,
        "output": steps.clamp(max=1),
        "steps": steps,
    }
    if geometry.decoder_layers == 0:
        written = {
            "steps_pairs": steps * source + own,
            "step_attention": attention * steps,
            "step_attention_pairs": attention * (steps * kept + own),
            "step_ffn": ffn * steps,
        }
    else:
        self_attention, cross = keep.attention[:, layers:].sum(1), keep.cross_attention.sum(1)
        written = {
            "step_attention": self_attention * steps,
            "step_attention_pairs": self_attention * own,
            "cross_attention_tokens": cross * kept * steps.clamp(max=1),
            "step_cross_attention": cross * steps,
            "step_cross_attention_pairs": cross * steps * kept,
            "step_ffn": keep.ffn[:, layers:].sum(1) * steps,
        }
    return {**found, **written}


@dataclass(frozen=True)
class Seconds:
    """What an input takes on one machine.

    Attributes:
        geometry: of the model that was measured.
        coefficients: seconds of each of `counts`, for one input.
        policy: seconds of one input's decision.
        setting: what else was measured with, see `SETTING`.
    """

    geometry: Geometry
    coefficients: dict[str, float]
    policy: float
    setting: dict[str, Any]

    @property
    def encoder_layers(self) -> int:
        """Of the geometry."""
        return self.geometry.encoder_layers

    @property
    def decoder_layers(self) -> int:
        """Of the geometry."""
        return self.geometry.decoder_layers

    def spend(self, keep: Keep, lengths: Lengths, policy_flops: int = 0) -> Tensor:
        """Seconds of each input's path, float64 (B,), with the policy's where ``policy_flops`` is not 0."""
        found = counts(self.geometry, keep, lengths)
        total = sum((self.coefficients[name] * count for name, count in found.items()), torch.zeros(()))
        return total + (self.policy if policy_flops else 0.0)

    def to_json(self) -> dict[str, Any]:
        """As a file holds it."""
        return {
            "format": FORMAT,
            **self.setting,
            "geometry": asdict(self.geometry),
            "seconds": self.coefficients,
            "policy_seconds": self.policy,
        }

    @classmethod
    def read(cls, path: str, where: str) -> Seconds:
        """That of a file which ``calibrate`` wrote.

        Args:
            where: the flag that names it, for messages.

        Raises:
            UserError: it cannot be read, or is something else.
        """
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']}, not {FORMAT}")
            geometry = Geometry(**content["geometry"])
            sizes = asdict(geometry)
            if not all(isinstance(size, int) and size >= 0 for size in sizes.values()) or geometry.encoder_layers < 1:
                raise ValueError(f"no geometry: {sizes}")
            names = set(counts(geometry, *nothing(geometry)))
            coefficients = {name: float(content["seconds"][name]) for name in names}
            setting = {name: kind(content[name]) for name, kind in SETTING.items()}
            read = cls(geometry, coefficients, float(content["policy_seconds"]), setting)
        except OSError as error:
            raise UserError(f"{where} cannot be read: {error.strerror}: calibrate makes it") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where} is no file of python -m fairseq_switchdec calibrate ({error!r})") from None
        total = [read.policy, *coefficients.values()]
        if not all(0 <= value < float("inf") for value in total) or not any(coefficients.values()):
            raise UserError(f"{where} is no file of python -m fairseq_switchdec calibrate: seconds must be 0 or more")
        return read

    def check_geometry(self, geometry: Geometry, where: str) -> None:
        """Refuse another model's.

        Raises:
            UserError: naming what differs.
        """
        ours, theirs = asdict(geometry), asdict(self.geometry)
        differing = [
            f"{name} is {theirs[name]} there, {ours[name]} here" for name in ours if ours[name] != theirs[name]
        ]
        if differing:
            raise UserError(
                f"{where} was measured on another geometry: {', '.join(differing)}; calibrate this checkpoint"
            )

    def check_setting(self, setting: dict[str, Any], where: str, force: str) -> None:
        """Refuse what was measured otherwise.

        Args:
            setting: what is run with, those of `Seconds.setting` that are known.
            force: the flag that goes on all the same.

        Raises:
            UserError: naming both.
        """
        for name, value in setting.items():
            if self.setting[name] != value:
                raise UserError(
                    f"{where} was measured with {name.replace('_', ' ')} {self.setting[name]}, this run has {value}: "
                    f"calibrate again, or give {force} to go on"
                )


def nothing(geometry: Geometry) -> tuple[Keep, Lengths]:
    """An input without tokens, to learn the names of `counts`."""
    lengths = Lengths(*torch.zeros(3, 1, dtype=torch.long))
    return Keep.uniform(geometry, lengths, 1.0), lengths


def fit(geometry: Geometry, keep: Keep, lengths: Lengths, seconds: Tensor) -> dict[str, float]:
    """Coefficients, none negative, that minimize the relative errors' squares.

    Args:
        keep, lengths: of B measured paths; one that was only encoded has a target of 0 tokens.
        seconds: float64 (B,), of one input each.
    """
    found = counts(geometry, keep, lengths)
    matrix = torch.stack(list(found.values()), dim=1) / seconds.unsqueeze(1)
    scale = matrix.norm(dim=0).clamp(min=1e-12)
    solution = nonnegative_least_squares(matrix / scale, torch.ones_like(seconds)) / scale
    return dict(zip(found, solution.tolist()))


def nonnegative_least_squares(matrix: Tensor, target: Tensor) -> Tensor:
    """x >= 0 that minimizes |matrix x - target| (Lawson and Hanson, 1974).

    Args:
        matrix: float64 (B, F).
        target: float64 (B,).
    """
    columns = matrix.size(1)
    x, used = torch.zeros(columns, dtype=matrix.dtype), torch.zeros(columns, dtype=torch.bool)

    def solve() -> Tensor:
        solution = torch.zeros_like(x)
        solution[used] = torch.linalg.lstsq(matrix[:, used], target.unsqueeze(1), driver="gelsd").solution.squeeze(1)
        return solution

    for _ in range(3 * columns):
        gradient = (matrix.T @ (target - matrix @ x)).masked_fill(used, -1.0)
        best = int(gradient.argmax())
        if gradient[best] <= 1e-10:
            break
        used[best] = True
        solution = solve()
        while bool((solution[used] <= 0).any()):  # go from x towards the solution until one is 0, and drop that
            falling = used & (solution <= 0)
            share = (x[falling] / (x[falling] - solution[falling]).clamp(min=1e-30)).min()
            x = x + share * (solution - x)
            used &= x > 1e-12
            x = x * used
            if not bool(used.any()):
                break
            solution = solve()
        x = solution
    return x


def machine(device: torch.device) -> str:
    """What computes: a processor with its threads, or a GPU, and torch's version."""
    version = f"torch {torch.__version__.split('+')[0]}"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {version}"
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name)
    except OSError:  # not Linux
        pass
    return f"{name}, {torch.get_num_threads()} threads, {version}"

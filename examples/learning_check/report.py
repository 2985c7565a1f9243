"""What the learning check found: the figures against their targets, and what each type of input skips."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.files import write_text
from fairseq_switchdec.pictures.draw import Point, decisions_figure, quality_figure, save
from fairseq_switchdec.tokens import STRATEGY_NAMES

from ..common.stages import Stages
from .make_data import TYPES, noise_floor

DEFAULT_RULE = "quality"
MOST_COST = 0.85  # of the keep-all FLOPs
MOST_LOSS = 0.03  # nats a token above plain fine-tuning
LEAST_SHUFFLED = 0.3  # nats a token that another input's decisions are worse: the policy reads its input
LEAST_RANDOM = 0.4  # nats a token that random decisions of the same cost are worse


@dataclass(frozen=True)
class Result:
    """One switchable model on the validation split.

    Attributes:
        rule: weight rule it was trained with.
        seed: of its fine-tuning and the plain model's.
        plain: loss of plain fine-tuning of the same length, nats a token.
        greedy: figures of `measured` under the policy's decisions.
        shuffled: under those of another input.
        random: under random ones that cost the same.
        types: see `by_type`.
        budgets: of a policy with a dial, figures under the decisions for each budget that it was asked for.
    """

    rule: str
    seed: int
    plain: float
    greedy: dict[str, float]
    shuffled: dict[str, float]
    random: dict[str, float]
    types: dict[str, dict[str, Any]]
    budgets: dict[str, dict[str, float]]

    @property
    def name(self) -> str:
        """Of its stages and files."""
        return f"{self.rule}-{self.seed}"

    def checks(self) -> dict[str, bool]:
        """Each target, and whether it is reached."""
        loss = self.greedy["nll"]
        return {
            f"cost <= {MOST_COST}": self.greedy["cost"] <= MOST_COST,
            f"NLL <= plain + {MOST_LOSS}": loss <= self.plain + MOST_LOSS,
            f"shuffled >= {LEAST_SHUFFLED} worse": self.shuffled["nll"] >= loss + LEAST_SHUFFLED,
            f"random >= {LEAST_RANDOM} worse": self.random["nll"] >= loss + LEAST_RANDOM,
        }


def measured(record: dict[str, float]) -> dict[str, float]:
    """``fairseq-validate``'s figures: ``nll`` and ``keep_all`` in nats a token, ``cost`` a share of keep-all FLOPs."""
    nats = math.log(2)  # fairseq logs bits
    loss = record.get("valid_nll_loss", record["valid_loss"])
    keep_all = record.get("valid_keep_all_nll_loss", loss)
    return {"nll": loss * nats, "keep_all": keep_all * nats, "cost": record.get("valid_cost", 1.0)}


def by_type(switches: Path, text: Path) -> dict[str, dict[str, Any]]:
    """What the inputs of each type ran.

    Args:
        switches: ``--switch-report`` of the validation split.
        text: folder of ``valid.source``, whose first word on line i is the type of input i.

    Returns:
        by type: mean ``cost``; ``attention`` and ``ffn``, the shares of inputs that run each layer's; ``strategies``,
        the shares of inputs that choose each token strategy.
    """
    kinds = types_of_inputs(text)
    inputs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in read_entries(switches):
        inputs[kinds[entry["id"]]].append(entry)
    return {
        kind: {
            "cost": _mean(entry["cost"] for entry in inputs[kind]),
            "attention": [_mean(column) for column in zip(*(entry["attention_keep"] for entry in inputs[kind]))],
            "ffn": [_mean(column) for column in zip(*(entry["ffn_keep"] for entry in inputs[kind]))],
            "strategies": [
                _mean(entry["token_strategy"] == strategy for entry in inputs[kind])
                for strategy in range(len(STRATEGY_NAMES))
            ],
        }
        for kind in TYPES
    }


def markdown(results: list[Result]) -> str:
    """The report as people read it."""
    rows = [
        f"Losses in nats a token; no model passes the noise's {noise_floor():.3f}. Cost: share of keep-all FLOPs.",
        "",
        "| rule | seed | cost | NLL plain | greedy | keep-all | shuffled | random (its cost) | targets |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for result in results:
        missed = [target for target, reached in result.checks().items() if not reached]
        verdict = f"missed: {'; '.join(missed)}" if missed else "all reached"
        losses = f"{result.plain:.3f} | {result.greedy['nll']:.3f} | {result.greedy['keep_all']:.3f}"
        others = f"{result.shuffled['nll']:.3f} | {result.random['nll']:.3f} ({result.random['cost']:.3f})"
        rows.append(
            f"| {result.rule} | {result.seed} | {result.greedy['cost']:.3f} | {losses} | {others} | {verdict} |"
        )
    rows += _asked([result for result in results if result.budgets])
    for result in results:
        rows += ["", f"What each type of input runs, rule {result.rule}, seed {result.seed}", "", *_picture(result)]
    return "\n".join(rows) + "\n"


def write(out: Path, results: list[Result], stages: Stages) -> bool:
    """Write report.json, report.md and the pictures into ``out``, print the table; whether the default rule reached its
    targets.
    """
    entries = [{**asdict(result), "checks": result.checks()} for result in results]
    seconds = {name: stages.seconds(name) for name in stages.fingerprints}
    content = {"noise_floor": noise_floor(), "results": entries, "stage_seconds": seconds}
    write_text(out / "report.json", json.dumps(content, indent=1) + "\n")
    table = markdown(results) + f"\nSeconds of all stages: {sum(seconds.values()):.0f}\n"
    write_text(out / "report.md", table)
    files = ["report.json", "report.md"]
    try:
        files += draw(out, results)
    except UserError as error:
        table += f"\nNo pictures: {error}\n"
    print(f"\n{table}\nWritten: {out}/{', '.join(files)}")
    return all(all(result.checks().values()) for result in results if result.rule == DEFAULT_RULE)


def draw(out: Path, results: list[Result]) -> list[str]:
    """Draw all results, loss against cost, and what each input runs under the first of them; the files' names.

    Raises:
        UserError: matplotlib is missing.
    """
    plain = {result.seed: result.plain for result in results}
    points = [Point(f"plain-{seed}", 1.0, loss, loss, loss, "plain") for seed, loss in plain.items()]
    for result in results:
        for kind in ("greedy", "shuffled", "random"):
            cost, loss = getattr(result, kind)["cost"], getattr(result, kind)["nll"]
            points.append(Point(result.name, cost, loss, loss, loss, kind))
        for figures in result.budgets.values():
            cost, loss = figures["cost"], figures["nll"]
            points.append(Point(f"{result.name} asked", cost, loss, loss, loss, "asked"))
    save(quality_figure(points, "loss, nats a token (less is better)"), out / "report.png")
    first = results[0]
    entries = read_entries(out / "switches" / f"{first.name}.json")
    kinds = types_of_inputs(out / "text")
    figure = decisions_figure(entries, first.name, [kinds[entry["id"]] for entry in entries])
    save(figure, out / "decisions.png")
    return ["report.png", "decisions.png"]


def read_entries(switches: Path) -> list[dict[str, Any]]:
    """What every input ran, from a ``--switch-report``."""
    entries: list[dict[str, Any]] = json.loads(switches.read_text(encoding="utf-8"))["per_input"]
    return entries


def types_of_inputs(text: Path) -> list[str]:
    """The type of each input of the validation split: its first word."""
    return [line.split(maxsplit=1)[0] for line in (text / "valid.source").read_text(encoding="utf-8").splitlines()]


def _asked(results: list[Result]) -> list[str]:
    """A table of the budgets that policies with a dial were asked for."""
    rows = []
    for result in results:
        columns = " | ".join(result.budgets)
        reached = " | ".join(f"{figures['cost']:.3f}" for figures in result.budgets.values())
        losses = " | ".join(f"{figures['nll']:.3f}" for figures in result.budgets.values())
        rows += ["", f"One policy asked for any budget, seed {result.seed}", ""]
        rows += [f"| --switch-budget | {columns} |", "|---|" + "--:|" * len(result.budgets)]
        rows += [f"| cost | {reached} |", f"| NLL | {losses} |"]
    return rows


def _picture(result: Result) -> list[str]:
    """A table with a bar for each layer: full = all inputs of the type run it, blank = none does."""
    rows = ["| type | cost | attention, layers 1.. | feed-forward | tokens dropped |", "|---|--:|---|---|---|"]
    for kind, runs in result.types.items():
        order = sorted(range(len(STRATEGY_NAMES)), key=lambda strategy: -runs["strategies"][strategy])
        common = [
            f"{STRATEGY_NAMES[i]}: {runs['strategies'][i]:.0%}" for i in order[:2] if runs["strategies"][i] >= 0.05
        ]
        bars = f"`{_bars(runs['attention'])}` | `{_bars(runs['ffn'])}`"
        rows.append(f"| {kind} | {runs['cost']:.2f} | {bars} | {', '.join(common)} |")
    return rows


def _bars(shares: list[float]) -> str:
    """One character a layer, the encoder's layers, then the decoder's."""
    levels = "·▁▂▃▄▅▆▇█"
    drawn = "".join(levels[round(share * (len(levels) - 1))] for share in shares)
    return f"{drawn[: len(drawn) // 2]} {drawn[len(drawn) // 2 :]}"


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)

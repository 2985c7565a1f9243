"""The training benchmark: seconds an update and peak memory, ours beside plain BART with fairseq's own criterion.

Stock BART with ``label_smoothed_cross_entropy``, ours with ``lexico_policy_criterion`` on the keep-all path and on
learned decisions of cost 0.7: the same batches, the same optimizer, fairseq's trainer, in turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from . import report
from .options import Options
from .processes import Workers, prepare, scratch
from .setup import Lane

#: What is trained: name -> the worker's system, and ``--policy-decisions``.
VARIANTS: dict[str, tuple[str, str | None]] = {
    "stock": ("training-stock", None),
    "keep-all": ("training-ours", "keep-all"),
    "learned": ("training-ours", "learned"),
}
TITLES = {"stock": "plain BART, fairseq", "keep-all": "switchable, keep-all", "learned": "switchable, learned"}
WARM_UP = 1  # updates that are not measured: the first makes the optimizer's state


def run(options: Options) -> None:
    """The whole benchmark; writes training.json and training.md."""
    lanes = {system: Lane(system, options.precision[0]) for system, _ in VARIANTS.values()}
    surroundings = report.surroundings(options)  # now: the checkout may change during the run
    with scratch(options.out) as folder, Workers(options.out / "logs") as workers:
        print(f"making the weights of a BART of {options.shape.layers} + {options.shape.layers} layers", flush=True)
        prepare(options.setup(Lane("stock", "fp32"), folder), workers.logs / "weights.log")
        for lane in lanes.values():
            print(f"loading {lane}", flush=True)
            if not workers.start(lane, options.setup(lane, folder)):
                raise SystemExit(f"{lane} cannot be run: {workers.left_out[lane]}")
        sizes = {lane.system: require(workers, lane, "describe") for lane in lanes.values()}
        rows = [row for batch in options.batch for row in measure(options, workers, lanes, batch)]
    ours = sizes["training-ours"]
    share = ours["policy_parameters"] / ours["parameters"]
    content = {
        **surroundings,
        "training": rows,
        "costs": ours["costs"],
        "parameters": {system: size["parameters"] for system, size in sizes.items()},
        "policy_parameters": ours["policy_parameters"],
        "policy_share": share,
    }
    costs = ours["costs"]
    markdown = (
        f"{table(rows)}\n\nLearned decisions: greedy path at cost {costs['greedy']:.3f}, tried paths "
        f"{costs['tried']:.3f} on average, {costs['keep_all_share']:.0%} of the inputs on the keep-all path. "
        f"Policy: {ours['policy_parameters']:,} parameters, {share:.2%} of the model.\n"
    )
    report.write(options.out, "training", content, markdown)
    print(f"\n{markdown}\nwrote training.json and training.md in {options.out}")


def require(workers: Workers, lane: Lane, do: str, **request: Any) -> dict[str, Any]:
    """A reply without which there is nothing to compare.

    Raises:
        SystemExit: the worker has ended.
    """
    answer = workers.ask(lane, do, **request)
    if answer is None:
        raise SystemExit(f"{lane} cannot go on: {workers.left_out[lane]}")
    return answer


def measure(options: Options, workers: Workers, lanes: dict[str, Lane], batch: int) -> list[dict[str, Any]]:
    """All variants at one batch size, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    peaks: dict[str, int] = dict.fromkeys(VARIANTS, 0)  # updates differ: some inputs take the keep-all path
    for number in range(WARM_UP + options.repeats):
        for name, (system, decisions) in VARIANTS.items():
            answer = require(workers, lanes[system], "step", number=number, batch=batch, decisions=decisions)
            if number >= WARM_UP:
                peaks[name] = max(peaks[name], answer["peak"])
                seconds[name].append(answer["seconds"])
                turn = f"update {number - WARM_UP + 1}/{options.repeats}"
                print(f"{turn}, batch {batch}, {TITLES[name]}: {answer['seconds']:.3f} s", flush=True)
    return summarize(batch, seconds, peaks)


def summarize(batch: int, seconds: dict[str, list[float]], peaks: dict[str, int]) -> list[dict[str, Any]]:
    """What is reported of every variant. The mean too: a share of the inputs takes the dearer keep-all path."""
    rows = []
    for name, runs in seconds.items():
        rows.append(
            {
                "batch": batch,
                "variant": name,
                "seconds": {**report.spread(runs), "mean": statistics.mean(runs)},
                "ratio_to_stock": statistics.median(runs) / statistics.median(seconds["stock"]),
                "mean_ratio_to_stock": statistics.mean(runs) / statistics.mean(seconds["stock"]),
                "peak_bytes": peaks[name],
                "memory_ratio_to_stock": peaks[name] / peaks["stock"],
                "runs": runs,
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The variants in Markdown."""
    lines = [
        "| batch | training | s an update (range) | mean | median / stock | mean / stock | peak MiB | memory / stock |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seconds = row["seconds"]
        cells = [
            row["batch"],
            TITLES[row["variant"]],
            f"{seconds['median']:.3f} ({seconds['min']:.3f} to {seconds['max']:.3f})",
            f"{seconds['mean']:.3f}",
            f"{row['ratio_to_stock']:.3f}",
            f"{row['mean_ratio_to_stock']:.3f}",
            f"{row['peak_bytes'] / 2**20:.0f}",
            f"{row['memory_ratio_to_stock']:.3f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)

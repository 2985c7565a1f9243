"""The generation benchmark: seconds and peak memory of every system at every precision, ours on several decisions.

    weights, the same for all -+-> a process for each system and precision -> do their keep-all logits agree?
                                      -> one generation each, in turn, for its memory; then --repeats for their time
                                      -> results.json, results.md, results.svg in --out

What is timed are whole generations; `check` comes first, `report` last.
"""

from __future__ import annotations

import json
from typing import Any

from fairseq_switchdec.files import write_text

from . import check, plot, report, texts
from .decisions import KEEP_ALL, in_turn, read
from .options import Options
from .processes import Workers, prepare, scratch
from .report import Case
from .setup import Lane, batches


def start(options: Options, workers: Workers, folder: str) -> None:
    """Make the weights and start every lane's worker, one after the other: loading takes more memory than running."""
    say(f"making the weights of {options.backbone}, {options.shape.layers} layers of {options.shape.dim} dimensions")
    setup = options.setup(Lane(",".join(map(str, options.lanes())), "fp32"), folder)
    prepare(setup, workers.logs / "weights.log")
    if options.texts is not None:
        rows = texts.tokens(texts.read(options.texts), setup)
        write_text(setup.texts_file, json.dumps(rows))
        say(f"{len(rows)} texts of {len(rows[-1])} to {len(rows[0])} tokens")
    for lane in options.lanes():
        say(f"loading {lane}")
        workers.start(lane, options.setup(lane, folder))
    if options.reference not in workers.running:
        raise SystemExit(
            f"{options.reference}, which all is compared with, could not be run: {workers.left_out[options.reference]}"
        )


def cases_of(options: Options) -> list[Case]:
    """Everything that is timed, in the order in which it is."""
    files = {name: read(name, options.shape.stacks) for name in options.decisions}
    return [
        Case(batch, beam, lane, name, entries)
        for batch in options.batch
        for beam in options.beam
        for lane in options.lanes()
        for name, entries in files.items()
        if (lane.system == "ours" or entries is None) and (lane.system != "llama.cpp" or (batch, beam) == (1, 1))
    ]


def measure(options: Options, workers: Workers, cases: list[Case]) -> list[Case]:
    """Run every case once for its memory, then ``--repeats`` times in turn; those that came through."""
    for repeat in range(options.repeats + 1):
        for case in cases:
            ours = case.lane.system == "ours"
            entries = in_turn(case.entries, case.batch, options.shape.stacks) if ours else None
            request: dict[str, Any] = {"batch": case.batch, "beam": case.beam, "decisions": entries}
            answer = workers.ask(case.lane, "generate", **request, memory=repeat == 0)
            if answer is None:
                continue
            if repeat == 0:
                case.peak = answer["peak"]
                peak = "unknown" if case.peak is None else f"{case.peak / 2**20:.0f} MiB"
                say(f"memory, {case}: {peak}")
            else:
                case.encoder.append(answer["encoder"])
                case.total.append(answer["total"])
                say(f"run {repeat}/{options.repeats}, {case}: {answer['total']:.3f} s")
    return [case for case in cases if case.lane in workers.running]


def bookkeeping(options: Options, workers: Workers, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What deciding costs, as a share of the same lane's keep-all time: generations on the policy's own decisions."""
    results = []
    for row in rows:
        if row["decisions"] != KEEP_ALL:
            continue
        lane = Lane("ours", row["precision"])
        request = {name: row[name] for name in ("batch", "beam")}
        answers = [workers.ask(lane, "bookkeeping", **request) for _ in range(min(options.repeats, 3))]
        runs = [(sum(answer["parts"].values()), answer["parts"]) for answer in answers if answer is not None]
        runs.sort(key=lambda run: run[0])
        if runs:
            seconds, parts = runs[len(runs) // 2]
            share = seconds / row["total_seconds"]["median"]
            where = {**request, "precision": row["precision"]}
            results.append({**where, "seconds": seconds, "share": share, "parts": parts})
            case = ", ".join(f"{name} {value}" for name, value in where.items())
            say(f"policy and bookkeeping, {case}: {seconds:.4f} s, {share:.2%}")
    return results


def run(options: Options) -> None:
    """The whole benchmark; writes results.json, results.md and results.svg."""
    surroundings = report.surroundings(options)  # now: the checkout may change during the run
    with scratch(options.out) as folder, Workers(options.out / "logs") as workers:
        start(options, workers, folder)
        setups = {lane: options.setup(lane, folder) for lane in options.lanes()}
        checks = check.run(workers, setups)
        inputs = {batch: batches(setups[options.reference], batch) for batch in options.batch}
        rows = report.summarize(measure(options, workers, cases_of(options)), options, inputs)
        shares = bookkeeping(options, workers, rows)
    content = {
        **surroundings,
        "check": checks,
        "cases": rows,
        "bookkeeping": shares,
        "left_out": {str(lane): why for lane, why in workers.left_out.items()},
    }
    lines = [report.table(rows, options), ""]
    lines += [check.line(result) for result in checks]
    lines += [
        f"Policy and bookkeeping, batch {entry['batch']}, beam {entry['beam']}, {entry['precision']}: "
        f"{entry['share']:.2%} of keep-all."
        for entry in shares
    ]
    lines += [f"Left out: {lane}: {why}." for lane, why in content["left_out"].items()]
    markdown = "\n".join(lines) + "\n"
    report.write(options.out, "results", content, markdown)
    drawn = plot.draw(options.out / "results.svg", rows, options.reference, options.kind.source)
    print(f"\n{markdown}\nwrote results.json, results.md{' and results.svg' if drawn else ''} in {options.out}")


def say(text: str) -> None:
    """A progress line."""
    print(text, flush=True)

"""``python -m fairseq_switchdec score``: ROUGE of outputs that exist, of several systems in one table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import check_writable, named_file, write_text
from .bootstrap import Interval, bootstrap, paired_bootstrap
from .outputs import Outputs, read_outputs, read_texts
from .perl import find_files2rouge, perl_rouge
from .ptb import find_jar, ptb_tokenize
from .rouge import MEASURES, TITLES, looks_undecoded, rouge_scores
from .sentences import lead


def get_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description="ROUGE-1/2/L with stemming and 95 %% bootstrap intervals, of one system or several. A file holds "
        "one text a line, or is an output of fairseq-generate (made with the data's --bpe).",
    )
    parser.add_argument(
        "--hypotheses", nargs="+", action="append", required=True, metavar="[NAME=]FILE",
        help="a system's outputs: one file, or all shards of fairseq-generate; repeat the option for other systems, "
        "which are compared with the first by paired bootstrap",
    )  # fmt: skip
    parser.add_argument("--references", metavar="FILE", help="default: those in the outputs of fairseq-generate")
    parser.add_argument("--source", metavar="FILE", help="articles: adds the baseline of their first sentences")
    parser.add_argument("--lead", type=int, default=3, metavar="N", help="sentences of that baseline (default: 3)")
    parser.add_argument("--ptb", action="store_true", help="tokenize with CoreNLP first, as BART's recipe does")
    parser.add_argument("--corenlp-jar", metavar="JAR", help="CoreNLP for --ptb (default: the one on CLASSPATH)")
    parser.add_argument("--files2rouge", action="store_true", help="run ROUGE-1.5.5 too, through files2rouge")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file too")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all cores)"
    )
    return parser


def cli_main() -> None:
    """Read the options, score, print the table, write the file.

    Raises:
        UserError: a mistake in them or in the files, before anything is scored.
    """
    args = get_parser().parse_args()
    if args.lead < 1 or args.processes < 1:
        raise UserError("--lead and --processes must be 1 or more")
    jar = find_jar(args.corenlp_jar) if args.ptb or args.corenlp_jar else None
    if args.files2rouge:
        find_files2rouge()
    if args.json:
        check_writable("--json", args.json)
    references, systems = gather(args)
    for name, texts in systems.items():
        if looks_undecoded(texts):
            print(f"warning: {name} holds numbers only: was --bpe forgotten in generation?", file=sys.stderr)
    if jar is not None:
        references = ptb_tokenize(references, jar)
        systems = {name: ptb_tokenize(texts, jar) for name, texts in systems.items()}
    result = score(references, systems, args.seed, args.processes)
    result["tokenization"] = "PTB" if jar else "none"
    if args.files2rouge:
        for name, texts in systems.items():
            intervals = perl_rouge(references, texts, tokenized=jar is not None)
            result["systems"][name]["rouge155"] = named(intervals)
    print(markdown(result))
    if args.json:
        write_text(args.json, json.dumps(result, indent=1) + "\n")


def gather(args: argparse.Namespace) -> tuple[list[str], dict[str, list[str]]]:
    """References, and each system's texts, in the order of the inputs' ids.

    Raises:
        UserError: what is missing, in which file.
    """
    outputs: dict[str, Outputs] = {}
    for first, *others in args.hypotheses:
        name, file = named_file(first)
        name = name or first
        if name in outputs:
            raise UserError(f"--hypotheses: two systems are called {name}; give names, as in --hypotheses NAME={first}")
        outputs[name] = read_outputs([file, *others])
    baseline = next(iter(outputs))
    if args.references:
        references, whose = read_texts(args.references, "references"), args.references
    else:
        references, whose = outputs[baseline].references, f"the references in {baseline}"
        if not references:
            raise UserError(f"{baseline} holds no references (T- lines): give --references FILE")
    systems = {name: aligned(found.hypotheses, references, name, whose) for name, found in outputs.items()}
    if args.source:
        articles = aligned(read_texts(args.source, "sources"), references, args.source, whose)
        systems[f"lead-{args.lead}"] = [lead(article, args.lead) for article in articles]
    return [references[index] for index in sorted(references)], systems


def aligned(texts: dict[int, str], references: dict[int, str], name: str, whose: str) -> list[str]:
    """Texts in the order of the references.

    Raises:
        UserError: they are not of the same inputs.
    """
    missing, unknown = sorted(references.keys() - texts.keys()), sorted(texts.keys() - references.keys())
    if missing or unknown:
        ids = ", ".join(map(str, (missing or unknown)[:5]))
        raise UserError(
            f"{name} has {len(texts)} texts, {whose} {len(references)}: {len(missing or unknown)} "
            f"{'are missing there' if missing else 'have no reference'} (inputs from 0: {ids}"
            f"{', ...' if len(missing or unknown) > 5 else ''})"
        )
    return [texts[index] for index in sorted(references)]


def score(references: Sequence[str], systems: dict[str, list[str]], seed: int, processes: int) -> dict[str, Any]:
    """Means with intervals of every system, and its differences to the first."""
    result: dict[str, Any] = {"pairs": len(references), "seed": seed, "systems": {}}
    baseline: np.ndarray | None = None
    for name, texts in systems.items():
        scores = rouge_scores(references, texts, processes=processes, progress=True)
        entry = named([bootstrap(column, seed=seed) for column in scores.T])
        if baseline is None:
            baseline, result["baseline"] = scores, name
        else:
            pairs = zip(scores.T, baseline.T)
            entry["minus_baseline"] = named([paired_bootstrap(ours, theirs, seed=seed) for ours, theirs in pairs])
        result["systems"][name] = entry
    return result


def named(intervals: Sequence[Interval]) -> dict[str, Any]:
    """Three measures by name."""
    return {measure: interval._asdict() for measure, interval in zip(MEASURES, intervals)}


def markdown(result: dict[str, Any]) -> str:
    """The result as people read it."""
    several = len(result["systems"]) > 1
    columns = ["system", *TITLES, *([f"R-L minus {result['baseline']}"] if several else [])]
    perl = any("rouge155" in entry for entry in result["systems"].values())
    columns += [f"{title} (1.5.5)" for title in TITLES] if perl else []
    rows = [columns, ["---", *["--:"] * (len(columns) - 1)]]
    for name, entry in result["systems"].items():
        row = [name, *(cell(entry[measure]) for measure in MEASURES)]
        if several:
            row.append(cell(entry["minus_baseline"]["rougeL"], "+") if "minus_baseline" in entry else "")
        row += [cell(entry["rouge155"][measure]) for measure in MEASURES] if perl else []
        rows.append(row)
    note = f"{result['pairs']:,} pairs; F1 with stemming; [95 % bootstrap interval]"
    note += f"; tokenization: {result['tokenization']}"
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{note}"


def cell(interval: dict[str, float], sign: str = "") -> str:
    """One figure and its interval."""
    return " ".join([f"{interval['mean']:{sign}.2f}", f"[{interval['low']:{sign}.2f}, {interval['high']:{sign}.2f}]"])

"""``fairseq_switchdec COMMAND ...``: fairseq's commands, with the compatibility fixes active, and ours.

``python -m fairseq_switchdec COMMAND ...`` is the same, and needs no install. fairseq's commands are the same as
``fairseq-COMMAND ...`` after ``pip install``, needed where Python reads no ``.pth`` file: the package on
``PYTHONPATH``, or installed with ``pip install --target``.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys

# name -> (module with a ``cli_main()`` that reads sys.argv, what the command does)
COMMANDS = {
    "encode": ("fairseq_switchdec.texts.command", "turn lines of text into lines of a tokenizer.json's ids"),
    "preprocess": ("fairseq_cli.preprocess", "build dictionaries and binarize text"),
    "train": ("fairseq_cli.train", "train a model"),
    "generate": ("fairseq_cli.generate", "generate from binarized text; with --engine, from a file, as predict"),
    "interactive": ("fairseq_cli.interactive", "generate from lines of text"),
    "validate": ("fairseq_cli.validate", "compute the validation loss of a checkpoint"),
    "predict": (
        "fairseq_switchdec.predict.command",
        "predict every row of a file: classes, numbers, answers, texts",
    ),
    "score": ("fairseq_switchdec.scoring.command", "ROUGE of generated text, of one system or several"),
    "squad-score": ("fairseq_switchdec.squad.command", "exact match and F1 of answers, as SQuAD's official scripts"),
    "export": ("fairseq_switchdec.export", "write a checkpoint's weights as a plain BART, or for transformers"),
    "import": ("fairseq_switchdec.models.hugging_face.command", "make a checkpoint of a Hugging Face model"),
    "calibrate": ("fairseq_switchdec.calibrate", "measure how many seconds each sublayer takes on this machine"),
    "plot": ("fairseq_switchdec.pictures.command", "draw what was decided, and quality against cost"),
    "report": (
        "fairseq_switchdec.report_command",
        "show a --switch-report as a page; merge those of several processes",
    ),
    "doctor": ("fairseq_switchdec.doctor.command", "check this installation and machine, and say what to do"),
}


def help_text(program: str) -> str:
    """What ``--help`` prints.

    Args:
        program: what was typed before the command.
    """
    lines = (f"  {name:<12} {purpose}" for name, (_, purpose) in COMMANDS.items())
    return "\n".join([f"usage: {program} COMMAND [ARGS ...]", "", "commands (each takes --help):", *lines])


def main() -> None:
    """Run the command that sys.argv names."""
    program = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    if program != "fairseq_switchdec":  # the installed script
        program = "python -m fairseq_switchdec"
    name = sys.argv[1] if len(sys.argv) > 1 else None
    if name in ("-h", "--help"):
        print(help_text(program))
        return
    if name not in COMMANDS:
        problem = "no command given" if name is None else f"unknown command {name!r}"
        print(f"{help_text(program)}\n\nfairseq_switchdec: {problem}", file=sys.stderr)
        sys.exit(2)
    if name != "doctor":  # which looks at the fixes itself, and at the rest where they fail
        from fairseq_switchdec.compat import install

        install()
    # argparse names the program by sys.argv[0] in its usage and error messages.
    sys.argv = [f"{program} {name}", *sys.argv[2:]]
    if name == "generate" and any(word.split("=")[0] == "--engine" for word in sys.argv):
        name = "predict"  # fairseq's command knows no engine
        sys.argv[1:1] = ["--task", "switchable_task"]
    module = importlib.import_module(COMMANDS[name][0])
    gc.freeze()  # all of torch stays to the end: looking through it for garbage then would take seconds
    module.cli_main()


if __name__ == "__main__":
    main()

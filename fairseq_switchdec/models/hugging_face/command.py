"""``python -m fairseq_switchdec import SOURCE OUT``: a model in Hugging Face's format as a checkpoint of ours.

SOURCE is a folder with config.json, the weights (model.safetensors or pytorch_model.bin, in one file or in shards) and
tokenizer.json; or a GGUF file of the llama architecture. GPT-2, LLaMA, T5 and BART are built. OUT gets model.pt,
dict.txt and tokenizer.json. Nothing in the files is run, and nothing is downloaded.
"""

from __future__ import annotations

import argparse

from .importer import Options, import_model


def cli_main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[2])
    parser.add_argument("source", metavar="SOURCE", help="folder of a Hugging Face model, or a GGUF file")
    parser.add_argument(
        "out", metavar="OUT", help="folder for model.pt, dict.txt and tokenizer.json; it must not hold them yet"
    )
    prompt = " (decoder-only models; special tokens may be named)"
    parser.add_argument("--prompt-prefix", metavar="TEXT", help=f"text before every input{prompt}")
    parser.add_argument(
        "--prompt-suffix", metavar="TEXT", help=f"text after every input, before the output{prompt}; for GPT-2 TL;DR:"
    )
    parser.add_argument("--tokenizer", metavar="FILE", help="another tokenizer.json than the model's own")
    parser.add_argument(
        "--max-target-positions", type=int, metavar="N",
        help="positions for the output, of all that the model has (decoder-only models; default: 1/4, at most 256)",
    )  # fmt: skip
    chosen = vars(parser.parse_args())
    print(import_model(chosen.pop("source"), chosen.pop("out"), Options(**chosen)))

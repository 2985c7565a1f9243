"""Times one model in several systems: a BART of random weights in stock fairseq, ours, Hugging Face's transformers,
CTranslate2, OpenVINO and ONNX Runtime; SmolLM2, a LLaMA, in transformers, ours and llama.cpp.

    python -m examples.benchmark                         generation (`generation`)
    python -m examples.benchmark --backbone smollm2      the same of SmolLM2
    python -m examples.benchmark --training              training steps (`training`)

The systems take turns, and each has a process of its own (`processes`, `worker`).
"""

from __future__ import annotations

from . import generation, training
from .options import parse


def main(argv: list[str] | None = None) -> None:
    """The command."""
    options = parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        training.run(options) if options.training else generation.run(options)
    except KeyboardInterrupt:
        raise SystemExit("interrupted: all workers have been ended, nothing was written") from None


if __name__ == "__main__":
    main()

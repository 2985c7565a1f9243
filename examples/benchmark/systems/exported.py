"""OpenVINO and ONNX Runtime, by Hugging Face's optimum: transformers searches, the library computes.

Their int8 is what their users get: OpenVINO's has weights of 8 bits, and computes in bfloat16 where the processor does;
ONNX Runtime's is dynamic quantization with a scale for each output of a weight.
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

from ..setup import Lane, Setup
from .hugging_face import Bart, bart, imported
from .interface import NotInstalled

#: What they are called among the benchmark's systems.
EXPORTED = ("openvino", "onnxruntime")


class Exported(Bart):
    """What an exporter made of transformers' BART."""

    def load(self, transformers: Any) -> Any:
        """See `HuggingFace.load`."""
        read, folder = self.reader(), folder_of(self.setup, self.setup.system, self.setup.precision)
        if not folder.exists():
            raise NotInstalled("its exporter made nothing of the model: see weights.log")
        model = read(folder)
        encoder = model.get_encoder()
        encoder.forward = self.timed(encoder.forward)
        return model

    @abstractmethod
    def reader(self) -> Callable[[Path], Any]:
        """What makes a model of a folder."""

    def timed(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        """The encoder, which marks its beginning and its end."""

        @wraps(encode)  # transformers passes on what a signature names
        def run(*args: Any, **inputs: Any) -> Any:
            self.watch.mark("encoder")
            encoded = encode(*args, **inputs)
            self.watch.mark("decoder")
            return encoded

        return run


class OpenVino(Exported):
    """``OVModelForSeq2SeqLM``."""

    def reader(self) -> Callable[[Path], Any]:
        """See `Exported.reader`."""
        config = {"INFERENCE_NUM_THREADS": str(self.setup.threads)}
        if self.setup.precision == "fp32":
            config["INFERENCE_PRECISION_HINT"] = "f32"
        return partial(openvino().from_pretrained, ov_config=config)


class OnnxRuntime(Exported):
    """``ORTModelForSeq2SeqLM``."""

    def reader(self) -> Callable[[Path], Any]:
        """See `Exported.reader`."""
        model, runtime = onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.setup.threads
        return partial(model.from_pretrained, session_options=options)


def openvino() -> Any:
    """optimum's class of such a model.

    Raises:
        NotInstalled: it cannot be imported.
    """
    try:
        from optimum.intel import OVModelForSeq2SeqLM
    except ImportError as error:
        raise NotInstalled(f"OpenVINO cannot be imported ({error}): pip install 'optimum-intel[openvino]'") from None
    return OVModelForSeq2SeqLM


def onnxruntime() -> tuple[Any, Any]:
    """optimum's class of such a model, and the library.

    Raises:
        NotInstalled: one of them cannot be imported.
    """
    try:
        import onnxruntime
        from optimum.onnxruntime import ORTModelForSeq2SeqLM
    except ImportError as error:
        raise NotInstalled(
            f"ONNX Runtime cannot be imported ({error}): pip install 'optimum-onnx[onnxruntime]'"
        ) from None
    return ORTModelForSeq2SeqLM, onnxruntime


def folder_of(setup: Setup, system: str, precision: str) -> Path:
    """Where a system's files are."""
    return Path(setup.folder) / f"{system}-{precision}"


def export(setup: Setup, lane: Lane) -> None:
    """Make a lane's files of the weights.

    Raises:
        NotInstalled: its library is missing.
    """
    transformers = imported()
    plain, folder = folder_of(setup, "hf", "fp32"), folder_of(setup, lane.system, lane.precision)
    model = openvino() if lane.system == "openvino" else onnxruntime()[0]
    if not plain.exists():
        bart(transformers, setup).save_pretrained(plain)
    if lane.system == "openvino":
        bits = {"load_in_8bit": lane.precision == "int8", "compile": False}
        model.from_pretrained(plain, export=True, **bits).save_pretrained(folder)
        return
    exact = folder_of(setup, lane.system, "fp32")
    if not exact.exists():
        model.from_pretrained(plain, export=True).save_pretrained(exact)
    if lane.precision == "int8":
        quantize(exact, folder)


def quantize(exact: Path, folder: Path) -> None:
    """ONNX Runtime's own dynamic quantization of all files of a model."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    shutil.copytree(exact, folder, ignore=shutil.ignore_patterns("*.onnx*"))
    for file in exact.glob("*.onnx"):
        quantize_dynamic(file, folder / file.name, per_channel=True, weight_type=QuantType.QInt8)

"""ONNX: written by torch's exporter, run by onnxruntime, made int8 by its static quantization. The extra ``onnx``."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..inference.pipeline import Deployed

INPUT, OUTPUT = "images", "probabilities"
OPSET = 20
_IN_BATCHES = 64


def needed(*modules: str) -> None:
    """Raise InputError for a module of the extra that is not installed."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError:
            raise InputError(
                f"format: onnx needs {name}, expected it installed: pip install 'shakeshake[onnx]'"
            ) from None


def to_onnx(deployed: Deployed, about: Mapping[str, str]) -> bytes:
    """The network with its preprocessing as an ONNX model: ``images`` (batch, H, W, C) uint8, any batch, in,
    ``probabilities`` (batch, classes) float32 out.

    about: goes into the file's metadata.
    """
    needed("onnx", "onnxscript")
    shapes = {INPUT: {0: torch.export.Dim("batch")}}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            deployed,
            (deployed.example(),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return described(program.model_proto.SerializeToString(), about)


def described(content: bytes, about: Mapping[str, str]) -> bytes:
    """The model with this metadata alone: torch's name the lines of this machine's files that made each node."""
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    lists = (graph.node, graph.input, graph.output, graph.initializer, graph.value_info)
    for part in (model, graph, *(one for several in lists for one in several)):
        del part.metadata_props[:]
        part.doc_string = ""
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString(deterministic=True)


def run_onnx(model: bytes | str, images: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) by onnxruntime of images (N, H, W, C) uint8."""
    needed("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    parts = [images[i : i + _IN_BATCHES] for i in range(0, len(images), _IN_BATCHES)]
    return np.concatenate([session.run([OUTPUT], {INPUT: part})[0] for part in parts])


def to_int8(model: bytes, images: np.ndarray) -> bytes:
    """The same with convolutions and the linear layer in int8, scales by channel for weights.

    images: (N, H, W, C) uint8 of the training images, over which the range of every feature map is measured.
    """
    needed("onnx", "onnxruntime")
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.parts = iter(images[i : i + _IN_BATCHES] for i in range(0, len(images), _IN_BATCHES))

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.parts, None)
            return None if part is None else {INPUT: part}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        whole, shaped, small = (Path(folder) / f"{name}.onnx" for name in ("whole", "shaped", "small"))
        whole.write_bytes(model)
        quantization.shape_inference.quant_pre_process(whole, shaped)
        quantization.quantize_static(
            shaped,
            small,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "Relu"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return small.read_bytes()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters speak of torchvision, of deprecations among themselves and of their progress: nothing for the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

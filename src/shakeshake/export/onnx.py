"""The format onnx: written by torch's exporter, run by onnxruntime, quantized to int8 on request."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from ..data.dataset import Split
from ..utils.extras import require
from .registry import CHECK_IMAGES, ExportSource, channels_last, register_format, sample

logger = logging.getLogger(__name__)

INPUT, OUTPUT = "images", "probabilities"
OPSET = 20
BATCH_SIZE = 64
CALIBRATION_IMAGES = 512  # training images on which int8 measures its ranges


@register_format("onnx", lambda int8=False: "model.int8.onnx" if int8 else "model.onnx")
def to_onnx(source: ExportSource, *, int8: bool = False) -> bytes:
    """An ONNX model, with the run's metadata.

    It takes ``images`` (batch, H, W, C) uint8 of any batch size and returns ``probabilities`` (batch, classes) float32.
    int8: quantize it, and log its error over all test images beside that of fp32.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, "onnx")
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            source.pipeline,
            (source.pipeline.example(),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    content = replace_metadata(program.model_proto.SerializeToString(), source.metadata)
    source.check(lambda images: run_onnx(content, images), "onnxruntime")
    return _quantized(source, content) if int8 else content


def _quantized(source: ExportSource, content: bytes) -> bytes:
    data = source.run.data
    train = channels_last(sample(data.train, CALIBRATION_IMAGES).images)
    small = to_int8(content, train)
    error, error_int8 = (_error(one, data.test) for one in (content, small))
    logger.info(
        f"test error {error:.2f} % in fp32, {error_int8:.2f} % in int8, over {len(data.test.labels):,} test images; "
        f"{len(content):,} and {len(small):,} bytes; ranges from {len(train):,} training images"
    )
    return replace_metadata(small, {**source.metadata, "test_error": repr(error_int8), "test_error_fp32": repr(error)})


def _error(content: bytes, test: Split) -> float:
    """Error in % over all images of a split, with part of them in memory at a time."""
    parts = [slice(first, first + CHECK_IMAGES) for first in range(0, len(test.labels), CHECK_IMAGES)]
    found = np.concatenate([run_onnx(content, channels_last(test.images[part])).argmax(axis=1) for part in parts])
    return 100 * float((found != test.labels).mean())


def replace_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """The model with this metadata only. Torch's own names the lines of this machine's files behind each node."""
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    lists = (graph.node, graph.input, graph.output, graph.initializer, graph.value_info)
    for part in (model, graph, *(one for several in lists for one in several)):
        del part.metadata_props[:]
        part.doc_string = ""
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString(deterministic=True)


def run_onnx(model: bytes, images: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) of images (N, H, W, C) uint8 by onnxruntime."""
    onnxruntime = require("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([OUTPUT], feed)[0] for feed in _feeds(images)])


def _feeds(images: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    return ({INPUT: images[i : i + BATCH_SIZE]} for i in range(0, len(images), BATCH_SIZE))


def to_int8(model: bytes, images: np.ndarray) -> bytes:
    """Quantize convolutions and the linear layer to int8, with a scale per channel for weights.

    images: (N, H, W, C) uint8, training images on which the range of every feature map is measured.
    """
    quantization = require("onnxruntime.quantization", "onnx")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.feeds = _feeds(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

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
    """Silence the exporters' warnings and progress, which are not for the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

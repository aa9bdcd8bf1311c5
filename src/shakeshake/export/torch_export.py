"""The format torch: a torch.export archive, which torch runs without this package."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import torch

from .registry import ExportSource, register_format

METADATA = "shakeshake.json"  # file within the archive
BATCH_SIZE = 64


@register_format("torch", "model.pt2")
def to_torch_export(source: ExportSource) -> bytes:
    """A .pt2 archive, to be read by ``torch.export.load(path).module()``.

    It takes images (batch, H, W, C) uint8 of any batch size and returns probabilities (batch, classes) float32.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            source.pipeline, (source.pipeline.example(),), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
        )
        for node in program.graph.nodes:  # it names lines of files on this machine
            node.meta.pop("stack_trace", None)
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={METADATA: json.dumps(source.metadata)})
    content = buffer.getvalue()
    source.check(lambda images: run_program(content, images), "torch.export")
    return content


def run_program(content: bytes, images: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) of images (N, H, W, C) uint8 by an archive."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.export.load(io.BytesIO(content)).module()
    with torch.no_grad():
        return torch.cat([network(batch) for batch in torch.from_numpy(images).split(BATCH_SIZE)]).numpy()

"""torch.export: the network as a graph that torch runs without this package."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping

import numpy as np
import torch

from ..inference.pipeline import Deployed

ABOUT = "shakeshake.json"  # what is known of the model, a file within the archive
_IN_BATCHES = 64


def to_program(deployed: Deployed, about: Mapping[str, str]) -> bytes:
    """A .pt2 archive: images (batch, H, W, C) uint8, any batch, in, probabilities (batch, classes) float32 out.

    Read it with ``torch.export.load(path).module()``.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            deployed, (deployed.example(),), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
        )
        for node in program.graph.nodes:  # names lines of files on this machine
            node.meta.pop("stack_trace", None)
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(dict(about))})
    return buffer.getvalue()


def run_program(content: bytes, images: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) of images (N, H, W, C) uint8 by the archive, read anew."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.export.load(io.BytesIO(content)).module()
    with torch.no_grad():
        return torch.cat([network(part) for part in torch.from_numpy(images).split(_IN_BATCHES)]).numpy()

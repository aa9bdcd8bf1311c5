"""A trained model with huggingface_hub's mixin: from_pretrained, save_pretrained, push_to_hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download

from ..models.model import CONFIG, WEIGHTS, TrainedModel, load
from ..models.weights import sha256, weights_as_bytes
from .model_card import CARD, minimal_card


class HubModel(TrainedModel, PyTorchModelHubMixin, library_name="shakeshake", pipeline_tag="image-classification"):
    """A trained model that can be pushed to the hub. card: its README.md, if it was loaded with one."""

    card = ""

    def _save_pretrained(self, save_directory: Path) -> None:
        weights = weights_as_bytes(self.network)
        config = {**self.config, "weights_sha256": sha256(weights)}
        (save_directory / WEIGHTS).write_bytes(weights)
        (save_directory / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """Return the model card of the run."""
        return ModelCard(self.card or minimal_card(self.config), ignore_metadata_errors=True)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str = "cpu", **options: Any
    ) -> HubModel:  # in place of the mixin's, which opens a pickle without model.safetensors
        folder = Path(model_id) if Path(model_id).is_dir() else _download(model_id, options)
        found = load(folder, map_location)
        model = cls(found.network, found.config).to(map_location).eval()
        if (folder / CARD).is_file():
            model.card = (folder / CARD).read_text(encoding="utf-8", errors="replace")
        return model


def _download(model_id: str, options: dict[str, Any]) -> Path:
    known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
    options = {name: options[name] for name in known if name in options}
    paths = [Path(hf_hub_download(repo_id=model_id, filename=name, **options)) for name in (CONFIG, WEIGHTS)]
    return paths[0].parent

"""TrainedModel with huggingface_hub's mixin: from_pretrained, save_pretrained, push_to_hub. The extra ``hub``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download

from ..models.model import CONFIG, WEIGHTS, TrainedModel, load
from ..models.weights import sha256, weights_as_bytes
from .model_card import CARD, plain_card


class HubModel(TrainedModel, PyTorchModelHubMixin, library_name="shakeshake", pipeline_tag="image-classification"):
    """A trained model that the hub's functions know. card: the README.md that it came with."""

    card = ""

    def _save_pretrained(self, save_directory: Path) -> None:
        weights = weights_as_bytes(self.network)
        config = {**self.config, "weights_sha256": sha256(weights)}
        (save_directory / WEIGHTS).write_bytes(weights)
        (save_directory / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        return ModelCard(self.card or plain_card(self.config), ignore_metadata_errors=True)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str = "cpu", **how: Any
    ) -> HubModel:  # not the mixin's own, which opens a pickle where there is no model.safetensors
        folder = Path(model_id) if Path(model_id).is_dir() else _downloaded(model_id, how)
        found = load(folder, map_location)
        model = cls(found.network, found.config).to(map_location).eval()
        if (folder / CARD).is_file():
            model.card = (folder / CARD).read_text(encoding="utf-8", errors="replace")
        return model


def _downloaded(model_id: str, how: dict[str, Any]) -> Path:
    known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
    given = {name: how[name] for name in known if name in how}
    paths = [Path(hf_hub_download(repo_id=model_id, filename=name, **given)) for name in (CONFIG, WEIGHTS)]
    return paths[0].parent

"""Made-up runs, analyses and tables in the format of the commands, and a browser for pages."""

from __future__ import annotations

import base64
import itertools
import json
import math
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from helpers import overflow

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BLOCKS = [f"stages.{stage}.blocks.{block}" for stage in range(3) for block in range(2)]
COLUMN = "14 2x16d"


def write_run(
    path: Path,
    *,
    epochs: int = 30,
    finished: bool = True,
    last: float = 6.0,
    noise: int = 0,
    analysis: bool = False,
    **recipe: Any,
) -> Path:
    path.mkdir(parents=True)
    recipe = {"data": "digits", "model": "shake_resnet8_2x16d", "rule": "S-S-I", "epochs": 30, "seed": 0, **recipe}
    (path / "recipe.json").write_text(json.dumps(recipe))
    (path / "environment.json").write_text(json.dumps({"python": "3.11", "device": "cpu", "commit": None}))
    rows = [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            "lr": 0.1 * (1 + math.cos(math.pi * epoch / epochs)),
            "train_loss": 2 / epoch + noise * (epoch * 7919 % 13),
            "train_error": 80 / epoch + noise * (epoch * 7919 % 13),
            "test_loss": 2.5 / epoch + noise * (epoch * 6007 % 17) if noise or epoch % 2 == 0 else None,
            "test_error": last + 80 / epoch - 80 / epochs + noise * (epoch * 6007 % 17)
            if noise or epoch % 2 == 0
            else None,
            "seconds": 1.5,
            "images_per_second": 200.0 + epoch,
        }
        for epoch in range(1, epochs + 1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        result = {"last_error": last, "best_error": last, "best_epoch": epochs, "last_train_error": 80 / epochs}
        result |= {"epochs": epochs, "steps": 10 * epochs, "seconds": 1.5 * epochs, "parameters": 1000}
        result |= {"train_images": 2000, "test_images": 400, "precision": "fp32", "data_fingerprint": "0" * 16}
        (path / "result.json").write_text(json.dumps(result))
    if analysis:
        found = made_analysis(recipe["rule"], recipe["seed"])
        (path / "analysis.json").write_text(json.dumps(found))
    return path


def made_analysis(rule: str = "S-S-I", seed: int = 0, classes: list[str] | None = None) -> dict[str, Any]:
    """analysis.json of ten classes and six blocks. Correlations are lower for rules that shake."""
    classes, random = classes or CLASSES, np.random.default_rng(seed)
    level = 0.62 if rule.startswith("E-E") else 0.38
    right = random.integers(600, 900, len(classes))
    confusion = random.integers(0, 60, (len(classes), len(classes)))
    np.fill_diagonal(confusion, right)
    correlations = np.clip(level + 0.06 * random.standard_normal(len(BLOCKS)), -1, 1)
    matrices = np.clip(0.08 * random.standard_normal((len(BLOCKS), 3, 3)) + np.diag([0.1, 0.05, level]), -1, 1)
    edges = np.linspace(0, 1, 16)
    pair = {"branches": [0, 1]}
    return {
        "format": 1,
        "rule": rule,
        "seed": seed,
        "split": "test",
        "images": 10_000,
        "classes": classes,
        "notes": [],
        "train_error": 5.45,
        "train_images": 2000,
        "gap": 30.02,
        "branch_correlation": [
            {"block": block, "pairs": [{**pair, "correlation": float(value)}]}
            for block, value in zip(BLOCKS, correlations, strict=True)
        ],
        "layerwise": [
            {"block": block, "layers": ["conv1", "bn1", "conv2"], "pairs": [{**pair, "matrix": matrix.tolist()}]}
            for block, matrix in zip(BLOCKS, matrices, strict=True)
        ],
        "confusion": confusion.tolist(),
        "calibration": {
            "ece": 0.1358,
            "mean_confidence": 0.7811,
            "accuracy": 0.6453,
            "bins": [
                {"low": low, "high": high, "images": 0, "confidence": None, "accuracy": None}
                if high < 0.2
                else {
                    "low": low,
                    "high": high,
                    "images": int(9000 * high**4) + 20,
                    "confidence": (low + high) / 2,
                    "accuracy": 0.8 * (low + high) / 2,
                }
                for low, high in itertools.pairwise(edges)
            ],
        },
        "mistakes": [
            {
                "index": 100 + i,
                "truth": i % len(classes),
                "predicted": (i + 3) % len(classes),
                "probability": 0.998 - i / 1000,
                "truth_probability": 0.001,
                "png": png(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)),
            }
            for i in range(12)
        ],
        "strength": {
            "rule": rule,
            "expected": 1 / 3,
            "measured": 0.3341,
            "draws": 100_000,
            "histogram": random.integers(210, 290, (20, 20)).tolist(),
        },
        "wrong": "AAAA",
    }


def png(pixels: np.ndarray) -> str:
    """Base64 of a PNG of (H, W, 3) uint8."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


PUBLISHED = {"E-E-B": 4.27, "S-E-I": 3.47, "S-S-I": 3.55, "S-M1-I": None}
LABELS = {"E-E-B": "Even-Even", "S-E-I": "Shake-Even-Image", "S-S-I": "Shake-Shake-Image", "S-M1-I": "Shake-M1-Image"}


def write_experiment(folder: Path, name: str = "table1", kind: str = "table", *, runs: bool = True) -> Path:
    """A table of four rows and two seeds. One seed of S-E-I failed; both of S-M1-I are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = {"E-E-B": [36.4, 35.8], "S-E-I": [33.9], "S-S-I": [35.41, 35.05], "S-M1-I": []}
    cells = []
    for row, errors in ours.items():
        listed = []
        for seed, error in enumerate(errors):
            path = f"cells/cifar10-shake_resnet14_2x16d-{row}-seed{seed}"
            if runs and not (folder / path).exists():
                write_run(folder / path, epochs=100, last=error, rule=row, seed=seed, analysis=True)
            listed.append({"seed": seed, "path": path, "last_error": error, "best_error": error - 0.2})
        mean = sum(errors) / len(errors) if errors else None
        cells.append(
            {
                "row": row,
                "column": COLUMN,
                "published": PUBLISHED[row],
                "published_for": "26 2x32d",
                "place": "Table 1",
                "runs": listed,
                "failed": [{"seed": 1, "reason": "the loss is not finite at step 41"}] if row == "S-E-I" else [],
                "missing": [] if errors else [0, 1],
                "mean": mean,
                "std": float(np.std(errors, ddof=1)) if len(errors) > 1 else None,
                "best_mean": mean and mean - 0.2,
                "train_mean": mean and mean - 20,
                "seconds_mean": mean and 660.0,
            }
        )
    found = {
        "format": 1,
        "experiment": name,
        "title": "CIFAR-10: what is shaken, and how finely",
        "place": "Table 1",
        "kind": kind,
        "scale": "small",
        "setting": "14 2x16d, 2,000 stratified training images of cifar10, 100 epochs, batch 64",
        "published_setting": "26 2xWd, all of CIFAR-10, 1800 epochs",
        "unit": "test error, %",
        "rows": [{"key": row, "label": LABELS[row], "rule": row} for row in ours],
        "columns": [{"key": COLUMN, "label": COLUMN}],
        "seeds": [0, 1],
        "cells": cells,
        "differences": [
            made_difference("S-E-I", -2.2, -3.1, -1.3, [2, 2], "seeds and test images"),
            made_difference("S-S-I", -0.87, -1.9, 0.2, [2, 2], "seeds and test images"),
        ],
        "reading": ["S-E-I against E-E-B: -2.20 points: a lower error."],
        "environment": {},
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(found))
    return path


def made_difference(row: str, value: float, low: float, high: float, n: list[int], covers: str) -> dict[str, Any]:
    found = {"row": row, "against": "E-E-B", "column": COLUMN, "difference": value, "low": low, "high": high}
    return {**found, "level": 0.95, "n": n, "images": 10_000, "covers": covers}


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    return write_run


@pytest.fixture(scope="session")
def make_analysis() -> Callable[..., dict[str, Any]]:
    return made_analysis


@pytest.fixture(scope="session")
def make_experiment() -> Callable[..., Path]:
    return write_experiment


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    quiet = "no-first-run disable-background-networking disable-component-update disable-sync disable-quic"
    for switch in f"headless=new no-sandbox disable-gpu {quiet}".split():
        options.add_argument(f"--{switch}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def open_page(browser: webdriver.Chrome) -> Callable[..., int]:
    """Opens a page and returns by how many pixels it is too wide."""

    def open_(page: Path, width: int = 1280, scheme: str = "light") -> int:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.get_log("performance")
        browser.get(page.as_uri())
        return overflow(browser)

    return open_


@pytest.fixture
def requested_urls(browser: webdriver.Chrome) -> Callable[[], set[str]]:
    """URLs that the page requested since it was opened, without data URLs."""

    def urls() -> set[str]:
        messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        sent = (m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent")
        return {url for url in sent if not url.startswith("data:")}

    return urls

"""Compare the rounding errors of Winograd's F(4x4, 3x3) for several evaluation points.

    python -m benchmarks winograd_points --out results/bench/winograd_points.json

Direct convolution is measured, too. float32 against float64: 400 tiles of 64 channels with inputs
as after a ReLU. The points in each dimension are 0, +-a, +-b and infinity. Errors are relative to
the standard deviation of the outputs. kernels/winograd.h uses the best.
"""

from __future__ import annotations

import numpy as np

from ._common import parser, save

PAIRS = {
    "1, 2": (1.0, 2.0),
    "1/2, 1": (0.5, 1.0),
    "1/2, 3/2": (0.5, 1.5),
    "1/2, 2": (0.5, 2.0),
    "3/5, 3/2": (0.6, 1.5),
    "2/3, 4/3": (2 / 3, 4 / 3),
    "3/4, 3/2": (0.75, 1.5),
    "sqrt(1/2), sqrt(2)": (0.5**0.5, 2**0.5),
}
TILES, CHANNELS = 400, 64


def matrices(a: float, b: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Transforms in one dimension: 6 pixels to 6 points, 3 weights to 6 points, 6 points to 4 outputs."""
    product, total = (a * b) ** 2, a * a + b * b
    pixels = np.array(
        [
            [product, 0, -total, 0, 1, 0],
            *([0, -p * b * b, -b * b, p, 1, 0] for p in (a, -a)),
            *([0, -p * a * a, -a * a, p, 1, 0] for p in (b, -b)),
            [0, product, 0, -total, 0, 1],
        ]
    )
    norms = {p: 2 * p * p * (p * p - q * q) for p, q in ((a, b), (-a, b), (b, a), (-b, a))}
    weights = np.array([[1 / product, 0, 0], *([1 / n, p / n, p * p / n] for p, n in norms.items()), [0, 0, 1]])
    outputs = np.array([[p**k for p in (0.0, *norms)] + [float(k == 3)] for k in range(4)])
    return pixels, weights, outputs


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args(argv)
    drawn = np.random.default_rng(args.seed)
    x = np.maximum(drawn.normal(size=(TILES, CHANNELS, 6, 6)), 0).astype(np.float32)
    w = drawn.normal(size=(CHANNELS, 3, 3)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    exact = np.einsum("ncijkl,ckl->nij", windows.astype(np.float64), w.astype(np.float64))
    found: dict[str, np.ndarray] = {"as written": np.zeros(exact.shape, np.float32)}
    for channel in range(CHANNELS):
        for k, row in enumerate(w[channel]):
            for m, weight in enumerate(row):
                found["as written"] += windows[:, channel, :, :, k, m] * weight
    for name, (a, b) in PAIRS.items():
        pixels, weights, outputs = (m.astype(np.float32) for m in matrices(a, b))
        values, at_points = pixels @ x @ pixels.T, weights @ w @ weights.T
        sums = np.zeros((TILES, 6, 6), np.float32)
        for channel in range(CHANNELS):
            sums += values[:, channel] * at_points[channel]
        found[name] = outputs @ sums @ outputs.T
    spread = exact.std()
    errors = {
        name: {"largest": float(abs(y - exact).max() / spread), "rms": float((y - exact).std() / spread)}
        for name, y in found.items()
    }
    for name, error in errors.items():
        print(f"{name:<20} largest {error['largest']:.1e}, rms {error['rms']:.1e}")
    save(args.out, {"seed": args.seed, "tiles": TILES, "channels": CHANNELS, "errors": errors})

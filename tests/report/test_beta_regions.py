"""The regions of beta in the report are those that the layer samples from."""

import pytest
import torch

from shakeshake.errors import InputError
from shakeshake.layers.rules import ShakeRule, expected_distance
from shakeshake.report.beta_regions import is_drawable, regions

RULES = [
    *("S-S-I", "S-E-B", "S-K-I", "E-S-B", "E-E-B", "S-0.25-I", "S-0.75-I", "S-S-I[0.4,0.6]", "S-M3-I[0.6,0.9]"),
    *(f"S-M{i}-I" for i in range(1, 6)),
    "S-M5-I[0.2,0.7]",
]


@pytest.mark.parametrize("rule", RULES)
def test_samples_fill_the_region(rule):
    parsed = ShakeRule.parse(rule)
    by_image = ShakeRule(parsed.forward, parsed.backward, "Image", parsed.low, parsed.high)
    alpha, beta = by_image.draw(4000, 2, generator=torch.Generator().manual_seed(0))
    alpha, beta = alpha[:, 0].double(), beta[:, 0].double()
    places = []
    for a, b in zip(alpha.tolist(), beta.tolist(), strict=True):
        region = next(s for s in regions(rule) if s.first - 1e-6 <= a <= s.last + 1e-6)
        # E-S is the only rule whose region is a vertical line: alpha does not determine the position of beta in it.
        low, high = (0.0, 1.0) if region.first == region.last and len(region.corners) == 2 else region.ends(a)
        assert low - 1e-6 <= b <= high + 1e-6
        if high - low > 1e-3:
            places.append((b - low) / (high - low))
    if places:  # uniform between the two ends: the samples fill the region
        placed = torch.tensor(places)
        assert placed.mean().item() == pytest.approx(0.5, abs=0.02)
        assert placed.var().item() == pytest.approx(1 / 12, abs=0.005)
    assert expected_distance(rule) == pytest.approx((beta - alpha).abs().mean().item(), abs=0.01)


def test_corners_match_the_paper():
    assert [s.corners for s in regions("S-M2-I")] == [[(0, 0), (0.5, 0), (0.5, 0.5)], [(0.5, 1), (1, 1), (0.5, 0.5)]]
    assert regions("S-S-I")[0].corners == [(0, 0), (1, 0), (1, 1), (0, 1)]
    assert regions("S-M1-B")[0].corners == [(0, 1), (1, 0)]


def test_invalid_rules_are_not_drawable():
    assert not is_drawable("S-M9-I")
    assert not is_drawable(None)
    with pytest.raises(InputError, match="is not a rule"):
        regions("<script>")

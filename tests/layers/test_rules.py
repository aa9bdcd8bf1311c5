import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import shakeshake as ss
from shakeshake import InputError, ShakeRule
from shakeshake.layers import rules
from shakeshake.layers.rules import expected_distance

N = 20_000
MIN_P = 1e-4  # of Kolmogorov-Smirnov tests with fixed seeds


def draw(rule, n=N, branches=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    alpha, beta = ShakeRule.parse(rule).draw(n, branches, generator=generator)
    return alpha.double().numpy(), beta.double().numpy()


strengths = st.floats(0, 1)
ranges = st.tuples(strengths, strengths).filter(lambda r: r[0] + 1e-9 < r[1])


@given(
    backward=st.sampled_from(["Even", "Shake", "Keep", "M1", "M2", "M3", "M4", "M5"]) | strengths,
    level=st.sampled_from(["Batch", "Image"]),
    bounds=st.just((0.0, 1.0)) | ranges,
)
def test_parse_inverts_str(backward, level, bounds):
    rule = ShakeRule("Shake", backward, level, *bounds)
    assert ShakeRule.parse(str(rule)) == rule


def test_names_follow_the_paper():
    assert str(ShakeRule("Even", "Even", "Batch")) == "E-E-B"
    assert str(ShakeRule("Shake", "M3", "Image")) == "S-M3-I"
    assert str(ShakeRule("Shake", 0.7, "Image")) == "S-0.7-I"
    assert ShakeRule.parse("S-E-I[0.4,0.6]") == ShakeRule("Shake", "Even", "Image", 0.4, 0.6)


@pytest.mark.parametrize(
    "invalid",
    [
        *("S-K", "X-S-I", "S-S", "s-s-i", "", "S-S-I-", "S-1.5-I", "S-nan-I", "S-M6-I", "S-E-I[0.6,0.4]", None, 3),
        *("E-M1-I", "E-0.5-I", "K-S-I", "S-E-I[0..4,1]"),
    ],
)
def test_invalid_rules_are_named(invalid):
    with pytest.raises(InputError, match=r"^rule: ") as raised:
        ShakeRule.parse(invalid)
    assert "expected" in str(raised.value)


@pytest.mark.parametrize("rule", ["S-S-I", "E-S-I", "S-K-I", "S-E-I", "E-E-I", "S-M2-I", "S-0.3-I"])
def test_rows_sum_to_one(rule):
    for coefficients in draw(rule):
        assert np.allclose(coefficients.sum(1), 1.0, atol=1e-6)


@pytest.mark.parametrize("branches", [2, 3, 5])
def test_shake_is_uniform_on_the_simplex(branches):
    """Each coordinate of Dirichlet(1, ..., 1) is Beta(1, N - 1): U(0, 1) at two branches."""
    for coefficients in draw("S-S-I", branches=branches):
        assert np.allclose(coefficients.sum(1), 1.0, atol=1e-6)
        for b in range(branches):
            assert stats.kstest(coefficients[:, b], stats.beta(1, branches - 1).cdf).pvalue > MIN_P


def test_alpha_and_beta_are_independent_under_shake():
    alpha, beta = (c[:, 0] for c in draw("S-S-I"))
    bound = 4 / math.sqrt(N)  # four standard deviations of a rank correlation
    assert abs(stats.spearmanr(alpha, beta).statistic) < bound
    assert abs(stats.spearmanr(abs(alpha - 0.5), abs(beta - 0.5)).statistic) < bound
    assert abs(np.abs(beta - alpha).mean() - 1 / 3) < 0.01


def test_even_is_constant_and_keep_repeats_alpha():
    alpha, beta = draw("E-E-I", branches=3)
    assert (alpha == np.float32(1 / 3)).all()
    assert (beta == alpha).all()
    alpha, beta = draw("E-S-I")
    assert (alpha == 0.5).all()
    assert stats.kstest(beta[:, 0], "uniform").pvalue > MIN_P
    alpha, beta = draw("S-E-I")
    assert (beta == 0.5).all()
    assert stats.kstest(alpha[:, 0], "uniform").pvalue > MIN_P
    alpha, beta = draw("S-K-I", branches=4)
    assert (alpha == beta).all()


TABLE_4 = {  # ends of the interval of beta: alpha < 0.5, alpha >= 0.5
    "M2": (lambda a: (0 * a, a), lambda a: (a, 0 * a + 1)),
    "M3": (lambda a: (a, 0 * a + 0.5), lambda a: (0 * a + 0.5, a)),
    "M4": (lambda a: (0 * a + 0.5, 1 - a), lambda a: (1 - a, 0 * a + 0.5)),
    "M5": (lambda a: (1 - a, 0 * a + 1), lambda a: (0 * a, 1 - a)),
}


@pytest.mark.parametrize("method", TABLE_4)
def test_update_rules_of_table_4(method):
    alpha, beta = (c[:, 0] for c in draw(f"S-{method}-I"))
    assert stats.kstest(alpha, "uniform").pvalue > MIN_P
    for side, ends in zip((alpha < 0.5, alpha >= 0.5), TABLE_4[method], strict=True):
        low, high = ends(alpha[side])
        place = (beta[side] - low) / (high - low).clip(1e-9)
        wide = high - low > 1e-3  # elsewhere rounding decides
        assert place[wide].min() > -1e-3
        assert place[wide].max() < 1 + 1e-3
        assert stats.kstest(place[wide].clip(0, 1), "uniform").pvalue > MIN_P


@pytest.mark.parametrize("s", [0.0, 0.2, 0.5, 0.7, 1.0])
def test_strength_interpolates_between_keep_even_and_m1(s):
    """beta = (1 - s) alpha + s (1 - alpha): Keep at 0, Even at 0.5, M1 at 1, E|beta - alpha| = s / 2."""
    alpha, beta = (c[:, 0] for c in draw(f"S-{s:g}-I"))
    assert np.allclose(beta, (1 - s) * alpha + s * (1 - alpha), atol=1e-6)
    assert np.abs(beta - alpha).mean() == pytest.approx(s / 2, abs=0.005)
    same = {0.0: "S-K-I", 0.5: "S-E-I", 1.0: "S-M1-I"}.get(s)
    if same:
        assert np.allclose(draw(same)[1][:, 0], beta, atol=1e-6)


def test_range_limits_alpha():
    alpha, beta = draw("S-E-I[0.4,0.6]")
    assert stats.kstest(alpha[:, 0], stats.uniform(0.4, 0.2).cdf).pvalue > MIN_P
    assert np.allclose(alpha.sum(1), 1.0, atol=1e-6)
    assert (beta == 0.5).all()


def test_coefficients_are_float32_for_any_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        drawn = [c for rule in ("S-S-I", "E-E-B", "S-M2-I") for c in ShakeRule.parse(rule).draw(3, 2)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert {c.dtype for c in drawn} == {torch.float32}


def test_level_decides_the_shape():
    alpha, beta = draw("S-S-I", n=8)
    assert alpha.shape == beta.shape == (8, 2)
    assert len(set(alpha[:, 0])) == 8, "one per image"
    alpha, beta = draw("S-S-B", n=8)
    assert alpha.shape == beta.shape == (2,), "one per batch"


def test_draws_differ_and_are_reproducible_with_a_generator():
    generator = torch.Generator().manual_seed(5)
    rule = ShakeRule.parse("S-S-I")
    first, second = rule.draw(4, 2, generator=generator), rule.draw(4, 2, generator=generator)
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[0], first[1])
    again = rule.draw(4, 2, generator=torch.Generator().manual_seed(5))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert rule.draw(4, 2, device="meta")[0].device.type == "meta", "drawn on the tensor's device"


@pytest.mark.parametrize("rule", ["S-M1-I", "S-M4-B", "S-0.7-I", "S-E-I[0.4,0.6]"])
def test_rules_for_two_branches_refuse_three(rule):
    with pytest.raises(InputError, match=r"two branches, got 3"):
        ShakeRule.parse(rule).draw(4, 3)
    with pytest.raises(InputError, match="got 1 branch"):
        ShakeRule.parse("S-S-I").draw(4, 1)


def third(images, branches, *, device, generator):
    alpha = torch.full((images, branches), 1 / branches, device=device)
    return alpha, torch.rand(alpha.shape, device=device, generator=generator).softmax(dim=1)


@pytest.fixture
def registered():
    before = dict(rules._registered)
    yield rules._registered
    rules._registered.clear()
    rules._registered.update(before)


def test_a_registered_rule_is_parsed_drawn_and_printed_by_its_name(registered):
    assert ss.register_rule("third")(third) is third
    rule = ShakeRule.parse("third")
    assert str(rule) == rule.label == "third"
    assert rule == ShakeRule.parse(rule) == copy.deepcopy(rule)
    assert not rule.needs_two_branches
    assert rule.beta_interval is None
    assert expected_distance(rule) is None
    alpha, beta = rule.draw(4, 3, generator=torch.Generator().manual_seed(0))
    again = third(4, 3, device=None, generator=torch.Generator().manual_seed(0))
    assert torch.equal(alpha, again[0])
    assert torch.equal(beta, again[1])
    branches = [torch.randn(4, 5, requires_grad=True) for _ in range(3)]
    y = ss.ShakeShake("third", generator=torch.Generator().manual_seed(0))(*branches)
    y.sum().backward()
    assert torch.allclose(y, sum(branches) / 3)
    assert torch.allclose(branches[1].grad, beta[:, 1:2].expand(4, 5))
    assert "third" in rules.list_rules()


@pytest.mark.parametrize(
    ("drawn", "match"),
    [
        (lambda n, b, **_: torch.ones(n, b), r"rule: odd returned Tensor, expected a pair \(alpha, beta\)"),
        (lambda n, b, **_: (torch.ones(n, b), torch.ones(b, n)), r"beta of shape \(2, 4\) .* expected \(4, 2\) or"),
        (lambda n, b, **_: ([0.5, 0.5], torch.ones(n, b)), "alpha of shape list"),
    ],
)
def test_a_registered_rule_that_returns_other_shapes_is_refused(registered, drawn, match):
    ss.register_rule("odd")(drawn)
    with pytest.raises(InputError, match=match):
        ShakeRule.parse("odd").draw(4, 2)


def test_a_rule_is_registered_once_under_a_name_that_is_free(registered):
    for name in ("S-S-I", "S-0.5-B", "none", "", "a rule", None, "S-E-I[0.4,0.6]"):
        with pytest.raises(InputError, match=r"^rule: "):
            ss.register_rule(name)
    ss.register_rule("third")(third)
    ss.register_rule("third")(third)  # the same definition, as in a notebook cell that is run again
    with pytest.raises(InputError, match=r"'third' is already registered by .*, expected another name"):
        ss.register_rule("third")(draw)
    ss.register_rule("third", replace=True)(draw)
    with pytest.raises(InputError, match="expected a function that draws"):
        ss.register_rule("more")(3)


def test_a_rule_that_is_not_registered_says_how_to_register_it():
    with pytest.raises(InputError, match=r"'net.py:half' .* not registered here; .* pass --rule PATH/net.py:half$"):
        ShakeRule.parse("net.py:half")


@pytest.mark.parametrize("name", rules.BETA_INTERVALS)
def test_beta_intervals_agree_with_the_draws(name):
    alpha, beta = (c[:, 0] for c in draw(f"S-{name if name in rules.UPDATE_RULES else name[0]}-I"))
    start, end = rules.BETA_INTERVALS[name].ends(alpha, (alpha >= 0.5).astype(float))
    assert (beta > np.minimum(start, end) - 1e-6).all()
    assert (beta < np.maximum(start, end) + 1e-6).all()


@pytest.mark.parametrize("branches", [2, 3])
def test_stochastic_depth_drops_whole_blocks_and_keeps_the_mean(branches):
    alpha, beta = draw("stochastic-depth", branches=branches)
    assert np.array_equal(alpha, beta)
    sums = alpha.sum(axis=1)
    assert np.allclose(np.unique(sums.round(5)), [0.0, 1.25])
    assert abs((sums == 0).mean() - 0.2) < 0.015  # 5 standard errors


def test_shakedrop_multiplies_the_sum_as_its_paper_does():
    alpha, beta = (2 * 0.5 * c[:, 0] for c in draw("shakedrop"))  # without the division by the survival probability
    kept = alpha == 1.0
    assert np.array_equal(beta[kept], alpha[kept])
    assert abs(kept.mean() - 0.5) < 0.02
    assert stats.kstest(alpha[~kept], stats.uniform(-1, 2).cdf).pvalue > MIN_P
    assert stats.kstest(beta[~kept], stats.uniform(0, 1).cdf).pvalue > MIN_P
    assert abs(np.corrcoef(alpha[~kept], beta[~kept])[0, 1]) < 0.05


def test_drop_branch_keeps_each_branch_equally_often():
    alpha, beta = draw("drop-branch", branches=3)
    assert np.array_equal(alpha, beta)
    assert np.array_equal(alpha.sum(axis=1), np.ones(N))
    assert np.allclose(alpha.mean(axis=0), 1 / 3, atol=0.02)

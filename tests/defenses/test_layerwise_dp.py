"""Layer-wise clipping and noise: sums against hand-written and Opacus's clipping, sensitivity, noise, price, PCA."""

import math

import numpy as np
import pytest
import torch
from opacus.optimizers import DPPerLayerOptimizer
from scipy import stats
from sklearn.decomposition import PCA
from torch import nn

from auditor.white_box.step_audit import WhiteBoxOptions, observe_steps
from defenses.accounting import account, account_run
from defenses.architectures import Architecture
from defenses.defense import History
from defenses.engine.per_example import PerExampleGradients
from defenses.engine.training import Job, train
from defenses.errors import TrainingError
from defenses.guarantee import Guarantee, Unaccounted
from defenses.modes import Mode
from defenses.randomness import Noise
from defenses.recipe import Recipe
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.schemes.layerwise_dp import LayerwiseDP, LayerwiseGaussian, Pca

rng = np.random.default_rng(7)
X, Y = rng.normal(size=(60, 6)).astype(np.float32), rng.integers(0, 3, 60)
RECORDS = Records(X, Y, 3, Table((), "y", ()))
NET = Architecture("mlp", {"hidden": [5, 4]})
LOTS = Lots(60, 12, 2)
CPU = torch.device("cpu")


def test_a_layer_is_a_module_with_its_weight_and_bias() -> None:
    rule = LayerwiseGaussian(1.0, 1.0)
    assert rule.groups(["1.weight", "1.bias", "3.weight", "3.bias"]) == (0, 0, 1, 1)
    assert rule.groups(["weight", "bias"]) == (0, 0)
    vgg = Architecture("vgg", {"depth": 11, "width": 0.1}).build((3, 8, 8), 4, seed=0)
    names = [name for name, _ in vgg.named_parameters()]
    holders = [module for module in vgg.modules() if next(module.parameters(recurse=False), None) is not None]
    assert any(isinstance(module, nn.GroupNorm) for module in holders)
    assert sorted(set(rule.groups(names))) == list(range(len(holders)))
    resnet = Architecture("resnet", {"depth": 18}).build((3, 8, 8), 4, seed=0)  # convolutions without a bias
    groups = rule.groups([name for name, _ in resnet.named_parameters()])
    assert list(groups) == sorted(groups)


def example_gradients(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[list[torch.Tensor]]:
    """Return each example's gradient, by parameter."""
    found = []
    for one, label in zip(x, y, strict=True):
        loss = nn.functional.cross_entropy(net(one[None]), label[None])
        found.append(list(torch.autograd.grad(loss, list(net.parameters()))))
    return found


def sums_of(rule: LayerwiseGaussian, net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    examples = PerExampleGradients(net, rule, tuple(x.shape[1:]))
    parameters = {name: value.detach() for name, value in net.named_parameters()}
    sums, _, _ = examples.sums(parameters, x, y, torch.ones(len(x), dtype=torch.bool), rule.initial())
    return list(sums.values())


def build() -> nn.Module:
    return NET.build((6,), 3, seed=1, dtype=torch.float64)


@pytest.mark.parametrize("shares", [None, (0.7, 0.2, 0.1)])
def test_sums_are_those_of_a_loop_over_examples_and_layers(shares: tuple[float, ...] | None) -> None:
    x, y = torch.from_numpy(X[:20]).double() * 3, torch.from_numpy(Y[:20])
    clip, each = 0.8, shares or (1 / 3,) * 3
    expected = [torch.zeros_like(value) for value in build().parameters()]
    clipped = 0
    for gradient in example_gradients(build(), x, y):
        for layer, share in enumerate(each):
            parts = gradient[2 * layer : 2 * layer + 2]
            norm = torch.sqrt(sum(part.square().sum() for part in parts))
            factor = min(1.0, clip * math.sqrt(share) / float(norm))
            clipped += factor < 1
            for position, part in enumerate(parts):
                expected[2 * layer + position] += factor * part
    assert 0 < clipped < 60  # or the test shows nothing
    for found, wanted in zip(sums_of(LayerwiseGaussian(clip, 0.0, shares), build(), x, y), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


def test_opacus_clips_single_tensors_to_the_same_sums() -> None:
    """Opacus's per-layer mode clips each parameter by itself, so the layers here have weights alone."""
    net = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False)).double()
    x, y = torch.from_numpy(X[:20]).double() * 3, torch.from_numpy(Y[:20])
    for value, each in zip(net.parameters(), zip(*example_gradients(net, x, y), strict=True), strict=True):
        value.grad_sample = torch.stack(each)  # type: ignore[attr-defined]
    thresholds = LayerwiseGaussian(0.8, 0.0, (0.6, 0.4)).thresholds(2)
    optimizer = DPPerLayerOptimizer(
        torch.optim.SGD(net.parameters(), lr=0.1),
        noise_multiplier=0.0,
        max_grad_norm=thresholds,
        expected_batch_size=20,
    )
    optimizer.clip_and_accumulate()
    theirs = [value.summed_grad for value in net.parameters()]  # type: ignore[attr-defined]
    for value in net.parameters():
        del value.grad_sample  # type: ignore[attr-defined]
    for found, wanted in zip(sums_of(LayerwiseGaussian(0.8, 0.0, (0.6, 0.4)), net, x, y), theirs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)  # they divide by norm + 1e-6


def whitened(rule: LayerwiseGaussian, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the sum over the examples with every layer over the deviation of its noise, as one vector."""
    net = build()
    groups, scales = rule.groups([name for name, _ in net.named_parameters()]), rule.scales(3)
    parts = sums_of(rule, net, x, y)
    return torch.cat([part.flatten() / scales[group] for part, group in zip(parts, groups, strict=True)])


@pytest.mark.parametrize("clip_shares", [None, (0.5, 0.3, 0.2)])
@pytest.mark.parametrize("budget_shares", [None, (0.1, 0.1, 0.8)])
@pytest.mark.parametrize("joint", [True, False])
def test_no_example_moves_the_step_by_more_than_its_price_says(
    clip_shares: tuple[float, ...] | None, budget_shares: tuple[float, ...] | None, joint: bool
) -> None:
    """Brute force over added records, most with huge gradients; in units of the noise, and attained."""
    sigma = 2.0
    rule = LayerwiseGaussian(0.5, sigma, clip_shares, budget_shares, joint=joint)
    x, y = torch.from_numpy(X).double() * torch.logspace(-1, 4, 60).double()[:, None], torch.from_numpy(Y)
    without = whitened(rule, x[:5], y[:5])
    moved = [
        float((whitened(rule, torch.cat([x[:5], x[i : i + 1]]), torch.cat([y[:5], y[i : i + 1]])) - without).norm())
        for i in range(5, 60)
    ]
    bound = 1 / sigma if joint else math.sqrt(3) / sigma
    assert max(moved) <= bound * (1 + 1e-9)
    if clip_shares is None and budget_shares is None:
        assert max(moved) > 0.9 * bound


def test_a_gradient_that_overflows_in_one_layer_has_no_weight_there() -> None:
    rule, mask = LayerwiseGaussian(1.0, 1.0), torch.tensor([True, True, False])
    norms = torch.tensor([[math.inf, 0.1, 2.0], [math.nan, 0.0, 0.5], [1.0, 1.0, 1.0]])
    weights, _ = rule.factors(norms, torch.zeros(3, dtype=torch.long), mask, {})
    expected = torch.tensor([[0.0, 1.0, 0.5 / math.sqrt(3)], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize(
    ("rule", "deviations"),
    [
        (LayerwiseGaussian(4.0, 2.0), (8.0, 8.0)),  # sigma C everywhere, as DP-SGD
        (LayerwiseGaussian(4.0, 2.0, joint=False), (8.0 / math.sqrt(2), 8.0 / math.sqrt(2))),
        (LayerwiseGaussian(4.0, 2.0, (0.64, 0.36)), (8.0, 8.0)),
        (LayerwiseGaussian(4.0, 2.0, (0.64, 0.36), joint=False), (2 * 3.2, 2 * 2.4)),
        (LayerwiseGaussian(4.0, 2.0, (0.64, 0.36), (0.5, 0.5)), (2 * 3.2 * math.sqrt(2), 2 * 2.4 * math.sqrt(2))),
    ],
)
def test_each_layer_has_noise_of_its_own_scale(rule: LayerwiseGaussian, deviations: tuple[float, float]) -> None:
    sums = {name: torch.zeros(100, 50) for name in ("1.weight", "1.bias", "3.weight")}
    released, state = rule.release(sums, torch.zeros(0), rule.initial(), Noise(3, "noise", 0, 0, device=CPU))
    assert state["layers"] == 2
    for name, deviation in zip(sums, (deviations[0], *deviations), strict=True):
        assert stats.kstest(released[name].flatten().numpy() / deviation, "norm").pvalue > 0.01
    assert not torch.equal(released["1.weight"], released["1.bias"])
    budgets = sum((threshold / scale) ** 2 for threshold, scale in zip(rule.thresholds(2), deviations, strict=True))
    assert budgets == pytest.approx((1 if rule.joint else 2) / 4)  # sum of sigma_l^-2 against sigma^-2


def trained(scheme: LayerwiseDP, public: Records | None = None):  # type: ignore[no-untyped-def]
    recipe = Recipe(architecture=NET, lots=LOTS, learning_rate=0.5)
    return train(Job(recipe, scheme, RECORDS, public=public), np.ones((2, 60), bool), [1, 2], device="cpu")


def test_with_one_share_for_all_and_no_clipping_it_is_dp_sgd() -> None:
    """The noise of `repaired` with equal shares is that of DP-SGD, number by number; thresholds bind nothing here."""
    ours = trained(LayerwiseDP(noise_multiplier=1e-3, max_grad_norm=100.0))
    recipe = Recipe(architecture=NET, lots=LOTS, learning_rate=0.5)
    scheme = DPSGD(noise_multiplier=1e-3, max_grad_norm=100.0)
    theirs = train(Job(recipe, scheme, RECORDS), np.ones((2, 60), bool), [1, 2], device="cpu")
    for name, value in theirs.parameters.items():
        torch.testing.assert_close(ours.parameters[name], value, rtol=1e-4, atol=1e-5)


def epsilon(found: Guarantee | Unaccounted) -> float:
    assert isinstance(found, Guarantee)
    return found.epsilon


@pytest.mark.parametrize("sigma", [8.0, 4.0, 2.0])
def test_literal_costs_what_dp_sgd_costs_with_less_noise_and_claims_one_figure(sigma: float) -> None:
    literal = LayerwiseDP(mode=Mode.LITERAL, noise_multiplier=sigma)
    history = History(LOTS, state=trained(literal).traces[0].state)
    assert history.state == {"layers": 3.0}
    less = DPSGD(noise_multiplier=sigma / math.sqrt(3)).event(history)
    assert epsilon(account_run(literal, history, delta=1e-5)) == epsilon(account(less, delta=1e-5))
    repaired = LayerwiseDP(noise_multiplier=sigma)
    same = account(DPSGD(noise_multiplier=sigma).event(history), delta=1e-5)
    assert epsilon(account_run(repaired, history, delta=1e-5)) == epsilon(same) == repaired.claimed(history).epsilon
    assert (literal.claimed(history).epsilon, literal.claimed(history).delta) == (0.5, 1e-5)


def test_what_cannot_be_priced_says_why() -> None:
    literal = LayerwiseDP(mode=Mode.LITERAL, noise_multiplier=4.0)
    untrained = account_run(literal, History(LOTS), delta=1e-5)
    assert isinstance(untrained, Unaccounted)
    assert "number of layers is not known" in untrained.reason
    known = LayerwiseDP(mode=Mode.LITERAL, noise_multiplier=4.0, clip_shares=(0.5, 0.5))
    assert isinstance(account_run(known, History(LOTS), delta=1e-5), Guarantee)
    raw = LayerwiseDP(mode=Mode.LITERAL, noise_multiplier=4.0, components=3, pca=Pca.LITERAL)
    found = account_run(raw, History(LOTS, state={"layers": 3.0}), delta=1e-5)
    assert isinstance(found, Unaccounted)
    assert "members' records" in found.reason


def test_what_steps_promise_is_known_where_shares_say_how_many_layers_there_are() -> None:
    assert LayerwiseDP(noise_multiplier=2.0).steps(LOTS) is None
    shares = (0.5, 0.3, 0.2)
    for mode, noise in ((Mode.REPAIRED, 2.0), (Mode.LITERAL, 2.0 / math.sqrt(3))):
        scheme = LayerwiseDP(mode=mode, noise_multiplier=2.0, clip_shares=shares)
        promise = scheme.steps(LOTS)
        assert promise is not None
        assert promise.thresholds == pytest.approx([4.0 * math.sqrt(share) for share in shares])
        assert promise.noise_multiplier == pytest.approx(noise)
        assert promise.priced(promise.noise_multiplier) == scheme.event(History(LOTS))
    raw = LayerwiseDP(mode=Mode.LITERAL, noise_multiplier=2.0, clip_shares=shares, components=2, pca=Pca.LITERAL)
    assert raw.steps(LOTS) is None
    assert LayerwiseDP(noise_multiplier=0.0, clip_shares=shares).steps(LOTS) is None


@pytest.mark.parametrize("mode", list(Mode))
def test_gradient_canaries_see_the_noise_that_is_priced(mode: Mode) -> None:
    """Along a canary that is as long as each layer lets through, the deviation is that of the promise."""
    scheme = LayerwiseDP(mode=mode, noise_multiplier=2.0, clip_shares=(1 / 3,) * 3)
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": [20, 20]}), lots=Lots(60, 12, 8))
    seen = observe_steps(Job(recipe, scheme, RECORDS), seed=1, watch=WhiteBoxOptions(60))
    noise = seen.values - seen.present
    deviation = 2.0 if mode is Mode.REPAIRED else 2.0 / math.sqrt(3)
    assert stats.kstest(noise.ravel() / deviation, "norm").pvalue > 0.01


def test_private_components_are_charged_and_public_ones_are_not() -> None:
    plain = epsilon(account_run(LayerwiseDP(noise_multiplier=2.0), History(LOTS), delta=1e-5))
    public = LayerwiseDP(noise_multiplier=2.0, components=3)
    private = LayerwiseDP(noise_multiplier=2.0, components=3, pca=Pca.DP, pca_noise_multiplier=5.0)
    assert epsilon(account_run(public, History(LOTS), delta=1e-5)) == plain
    with_them = epsilon(account_run(private, History(LOTS), delta=1e-5))
    alone = epsilon(account(DPSGD(noise_multiplier=5.0).event(History(Lots(1, 1, 1))), delta=1e-5))
    assert max(plain, alone) < with_them < plain + alone
    assert any("public" in sentence for sentence in public.assumptions())
    assert (public.uses_public, private.uses_public) == (True, False)


def test_a_target_is_met_with_the_components_share_in_it() -> None:
    """With a single lot of everybody both are Gaussian mechanisms, whose precisions add up."""
    lots = Lots(10, 10, 1)
    private = LayerwiseDP(epsilon=2.0, components=3, pca=Pca.DP, pca_noise_multiplier=3.0)
    bare = LayerwiseDP(epsilon=2.0)
    for scheme in (private, bare):
        assert 1.98 < epsilon(account_run(scheme, History(lots), delta=1e-5)) <= 2.0
        assert scheme.claimed(History(lots)).epsilon == 2.0
    assert private.noise(lots) ** -2 + 3.0**-2 == pytest.approx(bare.noise(lots) ** -2, rel=0.01)


def test_records_are_projected_on_what_the_field_says() -> None:
    public = Records(rng.normal(size=(40, 6)).astype(np.float32) * 2 + 1, Y[:40], 3, Table((), "y", ()))
    schemes = {
        "public": LayerwiseDP(noise_multiplier=1.0, components=3),
        "literal": LayerwiseDP(mode=Mode.LITERAL, noise_multiplier=1.0, components=3, pca=Pca.LITERAL),
    }
    for source, (name, scheme) in zip((public, RECORDS), schemes.items(), strict=True):
        found = scheme.prepare(RECORDS, np.random.default_rng(0), public=public)
        theirs = PCA(3, svd_solver="full").fit(source.x.astype(np.float64)).transform(X)
        assert found.front is not None
        np.testing.assert_allclose(np.abs(found.records.x), np.abs(theirs), atol=1e-4)
        np.testing.assert_allclose(found.front.apply_to(X), found.records.x, atol=1e-5)
        assert found.facts == {"components": 3, "fitted_on": name}
    model = trained(schemes["public"], public=public)
    assert model.logits(X).shape == (2, 60, 3)  # the model takes records as they are


def test_private_components_differ_from_model_to_model() -> None:
    scheme = LayerwiseDP(noise_multiplier=1.0, components=2, pca=Pca.DP, pca_noise_multiplier=1.0)
    found = trained(scheme).parameters["0.basis"]
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of the two"),
        ({"epsilon": 1.0, "noise_multiplier": 1.0}, "exactly one of the two"),
        ({"epsilon": -1.0}, "epsilon is -1"),
        ({"noise_multiplier": -1.0}, "noise_multiplier is -1"),
        ({"noise_multiplier": 1.0, "delta": 1.0}, "delta is 1"),
        ({"noise_multiplier": 1.0, "max_grad_norm": 0.0}, "max_grad_norm is 0"),
        ({"noise_multiplier": 1.0, "clip_shares": (0.5, 0.6)}, "sum to 1"),
        ({"noise_multiplier": 1.0, "budget_shares": (1.5, -0.5)}, "above 0"),
        ({"noise_multiplier": 1.0, "budget_shares": (1.0,), "clip_shares": (0.5, 0.5)}, "2 layers, budget_shares 1"),
        ({"noise_multiplier": 1.0, "budget_shares": (1.0,), "mode": Mode.LITERAL}, "has no effect in mode literal"),
        ({"noise_multiplier": 1.0, "components": 0}, "components is 0"),
        ({"noise_multiplier": 1.0, "components": 2, "pca": Pca.LITERAL}, "choose public or dp"),
        ({"noise_multiplier": 1.0, "components": 2, "pca": Pca.DP}, "pca_noise_multiplier is None"),
        ({"noise_multiplier": 1.0, "components": 2, "pca_noise_multiplier": 1.0}, "and pca = dp"),
        ({"noise_multiplier": 1.0, "pca_row_norm": -1.0}, "pca_row_norm is -1"),
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerwiseDP(**given)  # type: ignore[arg-type]


def test_what_does_not_fit_the_network_or_the_records_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"clip_shares has 2 shares, the network 3 layers .*1, 3, 5"):
        trained(LayerwiseDP(noise_multiplier=1.0, clip_shares=(0.5, 0.5)))
    with pytest.raises(TrainingError, match="components is 7; 60 records of 6 features have 1 to 6"):
        trained(LayerwiseDP(noise_multiplier=1.0, components=7), public=RECORDS)

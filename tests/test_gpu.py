"""Every scheme and every attack on CUDA, compared with the CPU; skipped, with the reason, where there is no CUDA."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from attacks.capabilities import Capability
from attacks.gradient_leakage.gradient_matching import GradientMatching
from attacks.gradient_leakage.label_recovery import recover_labels
from attacks.gradient_leakage.shared_gradients import shared_gradients, shared_under
from attacks.protocol import Attack, Guesses, MembershipScores, Reconstructions
from attacks.reconstruction.dcgan import DcganTraining
from attacks.registry import registered_attacks
from attacks.shadows import ShadowSource
from attacks.target import Target
from attacks.transcript import Transcript
from attacks.view import expose
from auditor.white_box.step_audit import WhiteBoxOptions, observe_steps
from defenses.architectures import Architecture
from defenses.defense import Defense
from defenses.engine.store import ModelStore
from defenses.engine.training import Job, train
from defenses.gradients import ClippedGaussian
from defenses.recipe import Precision, Recipe
from defenses.records import Image, Records, Table
from defenses.sampling import Lots
from defenses.schemes import registered_schemes
from defenses.updates import SGD

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is False: no CUDA device here"),
]

# How each scheme is built for a comparison; noise is off, because CPU and CUDA generators draw different numbers.
SETTINGS: dict[str, dict[str, object]] = {
    "adaptive_clipping": {"noise_multiplier": 0.0, "labels": 3},
    "automatic_clipping": {"noise_multiplier": 0.0},
    "dp_sgd": {"noise_multiplier": 0.0, "max_grad_norm": 0.5},
    "label_dp": {"epsilon": 1.0},  # what NumPy draws is the same everywhere
    "layerwise_dp": {"noise_multiplier": 0.0, "components": 8},
    "local_dp": {"gradient_epsilon": 50.0, "source_epsilon": 500.0},
    "marginals": {"epsilon": 1.0, "feature_range": (-3.0, 3.0), "bins": 3},
    "output_perturbation": {"epsilon": 1.0},
    "pate": {"noise_scale": 1.0, "teachers": 3, "queries": 15},
}
# What each can train, where that is not all.
NETWORKS = {"output_perturbation": ["linear"], "marginals": ["mlp"], "layerwise_dp": ["mlp"]}
CASES = [(name, network) for name in registered_schemes() for network in NETWORKS.get(name, ["mlp", "cnn"])]


def scheme(name: str, **changes: object) -> Defense:
    return registered_schemes()[name](**(dict(registered_schemes()[name].example) | SETTINGS.get(name, {}) | changes))


def job(defense: Defense, *, architecture: str = "cnn", epochs: int = 3) -> Job:
    rng = np.random.default_rng(0)
    tables = defense.name == "marginals"
    x = rng.normal(size=(110, 6) if tables else (110, 1, 8, 8)).astype(np.float32)
    both = Records(x, rng.integers(0, 3, 110), 3, Table((), "y", ()) if tables else Image())
    records, public = both.take(np.arange(80)), both.take(np.arange(80, 110))
    recipe = Recipe(
        architecture=Architecture("mlp", {"hidden": []}) if architecture == "linear" else Architecture(architecture),
        lots=Lots(40, 10, epochs),
        learning_rate=0.1,
        optimizer=SGD(0.9),
        precision=Precision.FLOAT64,
    )
    return Job(recipe, defense, records, public=public)


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_a_scheme_trains_the_same_models_as_on_the_cpu(name: str, architecture: str) -> None:
    work = job(scheme(name), architecture=architecture)
    included = np.random.default_rng(1).random((3, 80)) < 0.5
    here = train(work, included, [1, 2, 3], device="cpu")
    there = train(work, included, [1, 2, 3], device="cuda")
    for parameter, value in here.parameters.items():
        assert float((value - there.parameters[parameter]).abs().max()) < 1e-8
    x = work.records.x
    assert np.allclose(here.logits(x), there.logits(x, device="cuda"), atol=1e-8)


def test_noise_on_cuda_has_its_scale_and_does_not_depend_on_the_stack() -> None:
    work = job(scheme("dp_sgd", noise_multiplier=2.0))
    included = np.random.default_rng(1).random((3, 80)) < 0.5
    together = train(work, included, [1, 2, 3], device="cuda", width=3)
    apart = train(work, included, [1, 2, 3], device="cuda", width=1)
    for parameter, value in together.parameters.items():
        assert float((value - apart.parameters[parameter]).abs().max()) < 1e-8
    quiet = train(job(scheme("dp_sgd")), included, [1, 2, 3], device="cuda")
    moved = torch.cat([(quiet.parameters[n] - together.parameters[n]).flatten() for n in quiet.parameters])
    assert float(moved.std()) > 0.01


def on_models(kind: type[Attack]) -> bool:
    """Say whether an attack needs nothing but a model, its recipe and records."""
    return kind.claims in (MembershipScores, Reconstructions) and not BESIDE & kind.requires.access


BESIDE = {Capability.GRADIENTS, Capability.SYNTHETIC}
ON_MODELS = [kind for kind in registered_attacks().values() if on_models(kind)]


@pytest.mark.parametrize("kind", ON_MODELS, ids=lambda kind: kind.name)
def test_an_attack_finds_what_it_finds_on_the_cpu(kind: type[Attack], tmp_path: Path) -> None:
    attack = replace(kind(), shadows=4) if hasattr(kind(), "shadows") else kind()
    work = job(scheme("none"), architecture="mlp", epochs=40)
    included = np.random.default_rng(1).random((1, 80)) < 0.5
    found = {}
    for device in ("cpu", "cuda"):
        store = ModelStore(tmp_path / device)
        model = store.train(work, included, [9], device=device).one(0)
        outside = work.records.take(np.arange(20))
        source = ShadowSource(work, store, population=outside, device=device)
        target = Target(model, work.records, "d", population=outside, shadows=source)
        view = expose(target, attack.requires, device=device)
        claim = attack.run(view, rng=np.random.default_rng(0))
        found[device] = claim.x if isinstance(claim, Reconstructions) else claim.scores
    if kind.claims is Reconstructions:  # searches part ways in the last bits: that each makes records is what is asked
        assert found["cuda"].shape == found["cpu"].shape
        assert np.isfinite(found["cuda"]).all()
        return
    assert roc_auc_score(included[0], found["cuda"]) == pytest.approx(
        roc_auc_score(included[0], found["cpu"]), abs=0.05
    )


@pytest.mark.parametrize("name", ["dlg", "idlg", "inverting_gradients", "first_layer", "label_inference"])
def test_gradients_that_were_sent_are_attacked_where_they_are(name: str) -> None:
    records = job(scheme("none"), architecture="mlp").records
    model = Architecture("mlp", {"hidden": [16]}).build(records.shape, records.classes, seed=0).cuda()
    x, y = torch.from_numpy(records.x[:4])[:, None].cuda(), torch.from_numpy(records.y[:4])[:, None].cuda()
    sent = Transcript(gradients=shared_under(model, x, y, ClippedGaussian(10.0, 0.0), seed=1), clipped=True)
    kind = registered_attacks()[name]
    attack = kind(evaluations=30) if hasattr(kind, "evaluations") else kind()
    target = Target(model, records, "d", transcript=sent)
    claim = attack.run(expose(target, attack.requires, device="cuda"), rng=np.random.default_rng(0))
    if isinstance(claim, Guesses):
        assert np.array_equal(claim.values, records.y[:4])
    else:
        assert isinstance(claim, Reconstructions)
        assert len(claim.x) == 4
    if name == "first_layer":
        assert claim.x == pytest.approx(np.clip(records.x[:4], 0, 1), abs=1e-3)  # type: ignore[union-attr]


@pytest.mark.parametrize("rule", [None, ClippedGaussian(1.0, 1.0)])
def test_a_dcgan_is_trained_there(rule: ClippedGaussian | None) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 1, 8, 8)).astype(np.float32), rng.integers(0, 2, 40)
    gan = DcganTraining(steps=20, batch_size=10, width=8).run(
        x, y, classes=2, kind=Image(), seed=1, rule=rule, device="cuda"
    )
    assert np.isfinite(gan.sample(5, rng)).all()


def test_steps_are_watched_as_on_the_cpu() -> None:
    work = job(scheme("dp_sgd", noise_multiplier=1.0), architecture="mlp")
    here, there = (observe_steps(work, seed=1, watch=WhiteBoxOptions(64), device=device) for device in ("cpu", "cuda"))
    assert np.array_equal(here.present, there.present)
    assert np.allclose(here.values, there.values, atol=1e-6)


def test_gradients_leak_as_on_the_cpu() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(16, 12), torch.nn.Sigmoid(), torch.nn.Linear(12, 3)).double()
    x, y = torch.rand(4, 1, 16, dtype=torch.float64), torch.tensor([[0], [1], [2], [0]])
    found = {}
    for device in ("cpu", "cuda"):
        model = network.to(device)
        seen = shared_gradients(model, x.to(device), y.to(device))
        labels = recover_labels(seen["2.bias"], batch_size=1).labels
        generator = torch.Generator().manual_seed(1)
        found[device] = GradientMatching(evaluations=50).run(
            model, seen, shape=(16,), classes=3, generator=generator, labels=labels
        )
    assert np.array_equal(found["cpu"].labels, found["cuda"].labels)
    assert np.allclose(found["cpu"].x, found["cuda"].x, atol=1e-3)

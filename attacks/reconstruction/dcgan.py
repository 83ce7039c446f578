"""DCGAN: a generator trained on records, with or without differential privacy, and the attack that it makes."""

import copy
import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attacks.capabilities import Capability
from attacks.protocol import Attack, Reconstructions
from attacks.reconstruction import dcgan_networks as networks
from attacks.reconstruction.dcgan_networks import Gan as Gan
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.engine.memory import freed_memory_is_kept
from defenses.engine.per_example import PerExampleGradients
from defenses.engine.training import resolve_device
from defenses.errors import NotApplicableError
from defenses.gradients import GradientRule
from defenses.progress import OnProgress, Progress, silent
from defenses.randomness import Noise, derive, stream
from defenses.records import FloatArray, Image, IntArray, Records
from defenses.sampling import Lots, poisson_lots, shuffled_lots
from defenses.updates import Tensors

Rule = GradientRule | None

_HELD = 64  # records whose gradients are held at once
_REPORT = 50


@dataclass(frozen=True, kw_only=True)
class DcganTraining:
    """How a DCGAN is trained.

    Attributes:
        steps: Least number of steps of the discriminator; rounded up to whole passes over the records.
        batch_size: Records of a step, and fakes; the nominal lot of a private run. At least 2.
        learning_rate: Of the generator, in Adam.
        discriminator_rate: Of the discriminator, in Adam; None takes the generator's.
        betas: Decay of Adam's two moments, in [0, 1).
        discriminator_steps: Steps of the discriminator for one of the generator.
        ema_decay: Decay of the average of the generator's weights, in [0, 1).
        width: Feature maps of the layers nearest to the image.
        latent: Length of the latent vectors.
        conditional: Whether images are made by class; shows more of the records.

    Raises:
        ValueError: If a value is out of range.

    Source: Radford, Metz and Chintala 2015, "Unsupervised Representation Learning with Deep Convolutional Generative
    Adversarial Networks". Deviations: normal latent vectors, fewer feature maps, GroupNorm in the discriminator, a
    larger learning rate, averaged weights, and one output of the discriminator per class (Mescheder, Geiger and Nowozin
    2018, "Which Training Methods for GANs do actually Converge?").
    """

    steps: int = 1000
    batch_size: int = 50
    learning_rate: float = 1e-3
    discriminator_rate: float | None = None
    betas: tuple[float, float] = (0.5, 0.999)
    discriminator_steps: int = 1
    ema_decay: float = 0.99
    width: int = 32
    latent: int = 32
    conditional: bool = True

    def __post_init__(self) -> None:
        for name, least in {"steps": 1, "batch_size": 2, "discriminator_steps": 1, "width": 1, "latent": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name, rate in {"learning_rate": self.learning_rate, "discriminator_rate": self.discriminator_rate}.items():
            if rate is not None and not 0 <= rate < math.inf:
                raise ValueError(f"{name} is {rate}; it must be at least 0 and finite")
        for name, decays in {"betas": self.betas, "ema_decay": (self.ema_decay,)}.items():
            if not all(0 <= decay < 1 for decay in decays):
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")

    def lots(self, expected_members: int) -> Lots:
        """Return the public facts of sampling for so many records: what a scheme's rule and its price depend on."""
        size = min(self.batch_size, expected_members)
        return Lots(expected_members, size, -(-self.steps // -(-expected_members // size)))

    def run(
        self,
        x: FloatArray,
        y: IntArray,
        *,
        classes: int,
        kind: Image,
        seed: int,
        rule: Rule = None,
        expected_members: int | None = None,
        device: str = "cpu",
        on_progress: OnProgress = silent,
    ) -> Gan:
        """Train a generator.

        With a `rule`, the generator is differentially private in the records, at the price of the rule's noise over
        `lots.steps` Poisson lots of chance `lots.sampling_probability`. Records are met in one place alone, the
        discriminator's gradients on real images: each record of a Poisson lot has one gradient of its own, which the
        rule weights so that its norm is bounded; the sum is released once a step with the rule's noise, and divided by
        the nominal lot. All else (fakes, their number and classes, moments, both networks, the average) is computed
        from what was released and from other randomness: it is post-processing, and releases that depend on earlier
        ones compose all the same.

        Args:
            x: (n, *shape) records.
            y: (n,) labels.
            classes: Number of classes C.
            kind: Public range of the pixels.
            seed: Equal seeds give equal generators on one CPU. That of a private run must stay secret.
            rule: A scheme's rule for per-example gradients, made for `lots`; None trains without protection.
            expected_members: Nominal, public number of records; by default n, which is then public.
            device: "cpu", "cuda" or "auto".
            on_progress: Called while it works.

        Returns:
            The generator, with what an accountant needs.

        Raises:
            NotApplicableError: If records are not images of a size that is known.
            ValueError: If there are no records, or not one label each.

        Examples:
            >>> rule = scheme.gradient(training.lots(len(x)))                              # doctest: +SKIP
            >>> gan = training.run(x, y, classes=10, kind=Image(), seed=1, rule=rule)      # doctest: +SKIP
            >>> guarantee = account(scheme.event(History(gan.lots)), delta=1e-5)           # doctest: +SKIP
        """
        networks.check_shape(x.shape[1:])
        if not len(x) or len(x) != len(y):
            raise ValueError(f"there are {len(x)} records and {len(y)} labels; give at least one, with one label each")
        lots, records = self.lots(expected_members or len(x)), Records(x, y, classes, kind)
        duel = _Duel(self, records, lots, rule, seed, resolve_device(device))
        with freed_memory_is_kept():
            history = duel.run(on_progress)
        state = {name: value.tolist() for name, value in duel.state.items()}
        gan = Gan(duel.average, kind, lots, history, state=state)
        return dataclasses.replace(gan, collapsed=networks.collapse(gan, records, stream(seed, "diversity")))


class _Duel:
    """A generator and a discriminator in training: the mutable part."""

    def __init__(
        self, how: DcganTraining, records: Records, lots: Lots, rule: Rule, seed: int, device: torch.device
    ) -> None:
        self.how, self.lots, self.rule, self.seed, self.device = how, lots, rule, seed, device
        self.classes, shape, kind = records.classes, records.shape, records.kind
        assert isinstance(kind, Image)
        given = self.classes if how.conditional else 0
        self.draws = torch.Generator().manual_seed(derive(seed, "networks") % 2**63)
        self.passed = torch.zeros((), device=device)
        with torch.random.fork_rng(devices=[]):  # layers draw weights of their own first
            self.generator = networks.Generator(shape, latent=how.latent, width=how.width, classes=given)
            self.discriminator = networks.Discriminator(shape, width=how.width, classes=given)
        for network in (self.generator, self.discriminator):
            networks.initialise(network, self.draws)
            network.to(device)
            if rule is None:  # quicker, but for gradients by example, whose kernels would copy
                network.to(memory_format=torch.channels_last)
        rate = how.learning_rate if how.discriminator_rate is None else how.discriminator_rate
        self.judges, self.makers = list(self.discriminator.parameters()), list(self.generator.parameters())
        self.judging = torch.optim.Adam(self.judges, lr=rate, betas=how.betas, fused=True)
        self.making = torch.optim.Adam(self.makers, lr=how.learning_rate, betas=how.betas, fused=True)
        self.average = copy.deepcopy(self.generator).eval()
        self.averaged, self.followed = networks.numbers(self.average), networks.numbers(self.generator)
        x, self.y = torch.from_numpy(records.x).to(device), torch.from_numpy(records.y).to(device)
        self.x, self.state = 2 * (x - kind.low) / (kind.high - kind.low) - 1, Tensors()
        if rule is not None:
            self.state = {name: value.to(device) for name, value in rule.initial().items()}
            judged = networks.Judged(copy.deepcopy(self.discriminator), self.classes)
            self.examples = PerExampleGradients(judged, rule, (shape[0] + 1, *shape[1:]))
            self.x = torch.cat([self.x, self.y[:, None, None, None].expand(-1, 1, *shape[1:])], dim=1)

    def run(self, on_progress: OnProgress) -> FloatArray:
        """Train to the end and return the losses of both (steps, 2)."""
        everyone, losses = np.ones(len(self.y), dtype=np.bool_), list[Tensor]()
        draw = shuffled_lots if self.rule is None else poisson_lots
        for epoch in range(self.lots.epochs):
            for position, lot in enumerate(draw(self.lots, everyone, seed=self.seed, epoch=epoch)):
                makes = len(losses) % self.how.discriminator_steps == 0
                losses.append(self._step(torch.from_numpy(lot).to(self.device), (epoch, position), makes=makes))
                if makes:  # the average follows faster at first, when it holds little
                    decay = min(self.how.ema_decay, len(losses) / (9 + len(losses)))
                    torch._foreach_lerp_(self.averaged, self.followed, 1 - decay)
                if len(losses) % _REPORT == 0:
                    on_progress(Progress("training a DCGAN", len(losses), self.lots.steps))
        return np.asarray(torch.stack(losses).cpu().numpy(), dtype=np.float32)

    def _step(self, lot: Tensor, step: tuple[int, int], *, makes: bool) -> Tensor:
        """Take a step of the discriminator, one of the generator if it `makes`, and return their losses."""
        size = max(2, self.lots.batch_size)
        z = torch.randn(size, self.how.latent, generator=self.draws).to(self.device)
        labels = torch.randint(self.classes, (size,), generator=self.draws).to(self.device)
        with torch.set_grad_enabled(makes):
            fakes = self.generator(z, labels)
        if self.rule is None:
            both = torch.cat([self.x[lot], fakes.detach()]), torch.cat([self.y[lot], labels])
            real, fake = torch.split(self.discriminator(*both), [len(lot), size])
            caught = F.softplus(fake).mean()
            gradients = torch.autograd.grad(caught + F.softplus(-real).mean(), self.judges)
        else:
            caught = F.softplus(self.discriminator(fakes.detach(), labels)).mean()
            released = self._released(self.rule, lot, step)
            pairs = zip(torch.autograd.grad(caught, self.judges), released, strict=True)
            gradients = tuple(ours + theirs / self.lots.batch_size for ours, theirs in pairs)
        networks.descend(self.judging, self.judges, gradients)
        if makes:
            passed = F.softplus(-self.discriminator(fakes, labels)).mean()
            networks.descend(self.making, self.makers, torch.autograd.grad(passed, self.makers))
            self.passed = passed.detach()
        return torch.stack([caught.detach(), self.passed])

    def _released(self, rule: GradientRule, lot: Tensor, step: tuple[int, int]) -> list[Tensor]:
        """Return what the rule releases of the records of a Poisson lot: the noisy sum of their weighted gradients."""
        weights = {f"discriminator.{name}": value.detach() for name, value in self.discriminator.named_parameters()}
        real = torch.ones(len(lot), dtype=torch.bool, device=self.device)
        if not len(lot):  # one row of padding
            lot, real = lot.new_zeros(1), real.new_zeros(1)
        parts = [
            self.examples.sums(weights, self.x[rows], self.y[rows], mask, self.state, careful=True)
            for rows, mask in zip(torch.split(lot, _HELD), torch.split(real, _HELD), strict=True)
        ]
        sums = {name: torch.stack([part[0][name] for part in parts]).sum(0) for name in weights}
        noise = Noise(self.seed, "noise", *step, device=self.device)
        released, self.state = rule.release(sums, torch.stack([part[1] for part in parts]).sum(0), self.state, noise)
        return [released[name] for name in weights]


@dataclass(frozen=True, kw_only=True)
class Dcgan(Attack):
    """Train a DCGAN on images that were released in place of real ones, and return what it makes.

    A generator repeats what its few images have in common, so it shows real records where released ones are copies of
    them. It is trained without protection, on what everybody sees.

    Attributes:
        samples: Reconstructions, at least 1.
        steps: See `DcganTraining`, as for all that follow.
        batch_size: Images of a step.
        learning_rate: Of both networks.
        width: Feature maps.
        conditional: Whether images are made by class.
        device: Where it is trained: "cpu", "cuda" or "auto".
    """

    samples: int = 1000
    steps: int = 1000
    batch_size: int = 50
    learning_rate: float = 1e-3
    width: int = 32
    conditional: bool = True
    device: str = "cpu"

    name = "dcgan"
    title = "DCGAN reconstruction"
    paper = "Radford et al. 2015, Unsupervised Representation Learning with Deep Convolutional GANs"
    requires = ThreatModel(frozenset({Capability.SYNTHETIC}), candidates=False)
    claims = Reconstructions
    example = {"steps": 150, "samples": 20}

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples is {self.samples}; it must be at least 1")
        _ = self.training

    @property
    def training(self) -> DcganTraining:
        """How the generator is trained."""
        return DcganTraining(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            width=self.width,
            conditional=self.conditional,
        )

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Reconstructions:
        """Return samples of the generator.

        Raises:
            NotApplicableError: If records are no images of a size that is known, or the generator collapsed.
        """
        released, seed = view.synthetic, int(rng.integers(2**62))
        x, y, classes, kind = released.x, released.y, released.classes, released.kind
        if not isinstance(kind, Image):
            raise NotApplicableError("makes images, and these records are rows of a table")
        gan = self.training.run(
            x, y, classes=classes, kind=kind, seed=seed, device=self.device, on_progress=on_progress
        )
        if gan.collapsed:
            raise NotApplicableError(f"its generator collapsed, so its samples say nothing: {gan.collapsed}")
        return Reconstructions(gan.sample(self.samples, rng))

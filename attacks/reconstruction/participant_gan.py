"""Participant's GAN: a generator that learns from a classifier alone what its classes look like."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.capabilities import Capability
from attacks.protocol import Attack, Reconstructions
from attacks.reconstruction.dcgan_networks import descend, initialise, one_hot
from attacks.record_spec import RecordSpec
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.engine.memory import freed_memory_is_kept
from defenses.progress import OnProgress, Progress, silent
from defenses.records import Image

_LATENT = 32
_AT_ONCE = 500  # reconstructions made at once
_TINY = 1e-12  # gives the distance of equal records a slope
_REPORT = 50


@dataclass(frozen=True, kw_only=True)
class ParticipantGan(Attack):
    """Train a generator of records that the target calls by the class they are made for, varied within each class.

    The classifier stands in for the discriminator: the generator sees no record, only how the target takes what it
    made. As with model inversion, what comes out is what the model has learned of a class, so it is a leak of records
    where a class holds few.

    Attributes:
        samples: Reconstructions in all, evenly over the classes; at least 1.
        steps: Of the generator, at least 1.
        batch_size: Records of a step, at least 4.
        learning_rate: Of Adam, above 0.
        confidence: Probability of the class beyond which a record is pushed no further, in (0, 1).
        spread: Root mean squared difference, as a share of the range, beyond which two records of one class are pushed
            apart no further, in (0, 1].
        diversity: Weight of that push.
        smoothness: Weight of the total variation of images, per pixel.
        hidden: Units of the generator's hidden layer.

    Source: Hitaj, Ateniese and Perez-Cruz 2017, "Deep Models Under the GAN: Information Leakage from Collaborative Deep
    Learning". Deviations: there a participant watches the shared model over many rounds and feeds what it generates
    back under a false label, so that the victim's updates tell ever more of its class; here there is one released
    classifier, frozen, that nothing is fed to, and less comes out. One generator makes all classes; a bounded push
    apart (after Mao et al. 2019, "Mode Seeking Generative Adversarial Networks for Diverse Image Synthesis") keeps it
    from one record a class. A perceptron in place of a DCGAN, whose textures fool the classifier and look like nobody:
    on 40 faces, a class each, AUC 0.93 in place of 0.55.
    """

    samples: int = 400
    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 2e-3
    confidence: float = 0.9999
    spread: float = 0.1
    diversity: float = 1.0
    smoothness: float = 0.1
    hidden: int = 128

    name = "participant_gan"
    title = "Participant's GAN"
    paper = "Hitaj et al. 2017, Deep Models Under the GAN: Information Leakage from Collaborative Deep Learning"
    requires = ThreatModel(frozenset({Capability.WEIGHTS}), candidates=False)
    claims = Reconstructions
    example = {"steps": 150, "samples": 20}

    def __post_init__(self) -> None:
        for name, least in {"samples": 1, "steps": 1, "batch_size": 4, "hidden": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0 and finite")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence is {self.confidence}; it must lie strictly between 0 and 1")
        if not 0 < self.spread <= 1:
            raise ValueError(f"spread is {self.spread}; it is a share of the range, above 0 and at most 1")
        for name in ("diversity", "smoothness"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and finite")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Reconstructions:
        """Return `samples` records, and say how many the target calls by the class that they were made for."""
        facts, model = view.facts, view.module().requires_grad_(False)
        like = next(model.parameters())
        draws = torch.Generator().manual_seed(int(rng.integers(2**62)))
        with torch.random.fork_rng(devices=[]):  # layers draw weights of their own first
            generator = _Generator(facts, self.hidden)
        initialise(generator, draws)
        generator.to(like)

        def made(y: Tensor) -> Tensor:
            z = torch.randn(len(y), _LATENT, generator=draws).to(like)
            records: Tensor = generator(z, y.to(like.device))
            return records

        with freed_memory_is_kept():
            weights = list(generator.parameters())
            adam = torch.optim.Adam(weights, lr=self.learning_rate, betas=(0.5, 0.999), fused=True)
            for step in range(self.steps):
                y = torch.randint(facts.classes, (self.batch_size // 2,), generator=draws).repeat(2)
                x = made(y)
                loss = self._loss(x, model(x), y.to(like.device), facts)
                descend(adam, weights, torch.autograd.grad(loss, weights))
                if step % _REPORT == 0:
                    on_progress(Progress("training a generator", step, self.steps))
            parts = torch.split(torch.arange(self.samples) % facts.classes, _AT_ONCE)
            with torch.no_grad():
                records = [made(part) for part in parts]
                hits = [model(x).argmax(1).cpu() == y for x, y in zip(records, parts, strict=True)]
        found = int(torch.cat(hits).sum())
        note = f"The target calls {found} of {self.samples} reconstructions by the class that they were made for."
        return Reconstructions(torch.cat(records).float().cpu().numpy(), (note,))

    def _loss(self, x: Tensor, logits: Tensor, y: Tensor, facts: RecordSpec) -> Tensor:
        """Return what the generator lowers; x (B, *shape) and y (B,) hold the same classes in both halves."""
        low, high = facts.value_range
        margin = logits.gather(1, y[:, None])[:, 0] - logits.scatter(1, y[:, None], -torch.inf).logsumexp(dim=1)
        enough = math.log(self.confidence / (1 - self.confidence))
        one, other = x.flatten(1).chunk(2)
        apart = ((one - other).square().mean(1) + _TINY).sqrt() / (high - low)
        loss = F.relu(enough - margin).mean() + self.diversity * F.relu(1 - apart / self.spread).mean()
        if isinstance(facts.kind, Image) and x.ndim == 4:
            down, across = (x[:, :, 1:] - x[:, :, :-1]).abs().sum(), (x[:, :, :, 1:] - x[:, :, :, :-1]).abs().sum()
            loss = loss + self.smoothness * (down + across) / x.numel() / (high - low)
        return loss


class _Generator(nn.Module):
    """A perceptron from latent vectors and classes to records within the public range; it starts from plain grey."""

    def __init__(self, facts: RecordSpec, hidden: int) -> None:
        super().__init__()
        self.facts = facts
        pixels = math.prod(facts.shape)
        self.layers = nn.Sequential(
            nn.Linear(_LATENT + facts.classes, hidden), nn.ReLU(), nn.Linear(hidden, pixels), nn.Tanh()
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Return records (B, *shape) of latent vectors (B, latent) and classes y (B,)."""
        low, high = self.facts.value_range
        made = self.layers(torch.cat([z, one_hot(y, self.facts.classes).to(z)], dim=1))
        records: Tensor = (low + (high - low) / 2 * (made + 1)).clamp(low, high)
        return records.reshape(-1, *self.facts.shape)

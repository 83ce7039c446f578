"""First layer: the record itself, in closed form, from the gradient of a first linear layer with a bias."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from attacks.capabilities import Capability
from attacks.gradient_leakage.layer_order import layers_in_order
from attacks.gradient_leakage.random_inputs import probes
from attacks.protocol import Attack, Reconstructions
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.errors import NotApplicableError
from defenses.progress import OnProgress, silent


def first_layer_inputs(weight_gradient: Tensor, bias_gradient: Tensor, *, noisy: bool = False) -> Tensor:
    """Return the input of a first linear layer with a bias, exactly, for victims with one record each.

    Every row of the weight's gradient is the input times that row's entry of the bias's gradient; the input is what
    explains all rows best. Numbers that are zero were cut away, or explain themselves, and are left out. Under noise of
    equal size on both gradients it is the best line through all rows together (total least squares).

    Args:
        weight_gradient: (V, outputs, inputs).
        bias_gradient: (V, outputs).
        noisy: Whether both carry noise.

    Returns:
        (V, inputs); NaN for a victim whose bias gradient is zero, which tells nothing.

    Source: Phong et al. 2018, "Privacy-Preserving Deep Learning via Additively Homomorphic Encryption", section 3.
    """
    largest = bias_gradient.abs().amax(dim=1, keepdim=True)
    told = largest > 0
    scale = torch.where(told, largest, torch.ones_like(largest))
    bias, weight = bias_gradient / scale, weight_gradient / scale[:, :, None]
    if noisy:
        rows = torch.cat([weight, bias[:, :, None]], dim=2)
        strongest = torch.linalg.eigh(rows @ rows.transpose(1, 2)).eigenvectors[:, :, -1]
        line = torch.einsum("vo,voi->vi", strongest, rows)
        found = line[:, :-1] / line[:, -1:]
    else:
        explained = torch.einsum("voi,vo->vi", (weight != 0).to(bias), bias.square())
        found = torch.einsum("voi,vo->vi", weight, bias) / torch.where(explained > 0, explained, torch.inf)
    return torch.where(told, found, torch.nan)


@dataclass(frozen=True)
class FirstLayer(Attack):
    """Read each participant's record off the gradient of the network's first layer.

    Where that layer is linear with a bias and a participant has one record, nothing has to be searched: a scale,
    however small, and any number of local steps leave the record as exact as it was.

    Source: Phong et al. 2018, "Privacy-Preserving Deep Learning via Additively Homomorphic Encryption", section 3.
    Deviations: all rows are used instead of one, as the least squares do under noise and after numbers were cut away.
    """

    name = "first_layer"
    title = "First layer's gradient"
    paper = "Phong et al. 2018, Privacy-Preserving Deep Learning via Additively Homomorphic Encryption"
    requires = ThreatModel(frozenset({Capability.WEIGHTS, Capability.GRADIENTS}), candidates=False)
    claims = Reconstructions

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Reconstructions:
        """Return one record (V, *shape) for each participant; what tells nothing is the middle of the public range.

        Raises:
            NotApplicableError: If the first layer is not linear with a bias, is not given the record as it is, or
                participants have several records.
        """
        transcript, model = view.transcript, view.module().double()
        if transcript.batch_size != 1:
            raise NotApplicableError(
                f"needs participants with one record each: from {transcript.batch_size} the first layer gives a mixture"
            )
        x = probes(view.facts, model)
        first = layers_in_order(model, x)[0]
        if not isinstance(first.layer, nn.Linear) or first.layer.bias is None:
            raise NotApplicableError(
                f"needs a first layer that is linear with a bias, and {first.path!r} of this network is "
                f"{type(first.layer).__name__}{' without one' if isinstance(first.layer, nn.Linear) else ''}"
            )
        if not torch.equal(first.taken, x.flatten(1)):
            raise NotApplicableError(
                f"needs a first layer that is given the record as it is, and what {first.path!r} of this network is "
                "given was changed before"
            )
        weight, bias = (transcript.gradients[first.name(part)].to(x) for part in ("weight", "bias"))
        found = first_layer_inputs(weight, bias, noisy=transcript.noise > 0)
        silence = ~found.isfinite().all(dim=1)
        low, high = view.facts.value_range
        found[silence] = (low + high) / 2
        records = found.clamp(low, high).reshape(-1, *view.facts.shape).float().cpu().numpy()
        return Reconstructions(records, _remarks(view, int(silence.sum())))


def _remarks(view: View, silent_victims: int) -> tuple[str, ...]:
    transcript = view.transcript
    noted = []
    if transcript.noise > 0:
        noted.append(
            f"What was sent carries noise of standard deviation {transcript.noise:g}: records are what explains the "
            "gradients of all of the layer's outputs best, not exact."
        )
    elif transcript.sparsified:
        noted.append("Numbers were cut away: features that no number is left of are taken to be 0.")
    else:
        noted.append(f"{transcript.victims - silent_victims} of {transcript.victims} records follow exactly.")
    if silent_victims:
        noted.append(
            f"{silent_victims} of {transcript.victims} participants sent a first layer's gradient of zero, which tells "
            "nothing: the middle of the range stands for their records."
        )
    return tuple(noted)

"""Label inference: the labels of records whose gradients were shared."""

from dataclasses import dataclass

import numpy as np

from attacks.capabilities import Capability
from attacks.gradient_leakage.label_recovery import read_labels
from attacks.protocol import Attack, Guesses
from attacks.threat_model import LABEL, ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, silent


@dataclass(frozen=True)
class LabelInference(Attack):
    """Read the labels of each participant's records off the gradient of the last layer.

    With one record the label's entry of the last bias's gradient is the only negative one; noise has to drown the
    largest of its numbers to hide it, and so hides images long before labels. With several records the guess is the
    likeliest counts of classes. What somebody guesses without the gradient is drawn from all classes alike.

    A participant whose last layer's gradient is zero says nothing of labels: the guess is then the one without it, and
    not the first class, which is often the commonest.

    Guesses are in the order of participants; those of one participant have no order of their own and are ascending, so
    what they are compared with must be too.

    Source: Zhao, Mopuri and Bilen 2020, "iDLG"; Wainakh et al. 2021, "User-Level Label Leakage from Gradients in
    Federated Learning". Deviations: those of `recover_labels`; a last layer without a bias is read by its weight.
    """

    name = "label_inference"
    title = "Label inference from gradients"
    paper = "Wainakh et al. 2021, User-Level Label Leakage from Gradients in Federated Learning"
    requires = ThreatModel(frozenset({Capability.WEIGHTS, Capability.GRADIENTS}), candidates=False)
    claims = Guesses

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Guesses:
        """Return one guess for each record that a participant used, (V * B,).

        Raises:
            NotApplicableError: If the network's last layer does not have one output for each class.
        """
        transcript, model = view.transcript, view.module().double()
        found, notes = read_labels(view, model)
        drawn = np.sort(rng.integers(0, view.facts.classes, found.labels.shape), axis=1)
        labels = np.where(found.unknown[:, None], drawn, found.labels)
        if transcript.noise > 0:
            notes += (f"What was sent carries noise of standard deviation {transcript.noise:g}: no label is certain.",)
        if transcript.batch_size > 1:
            notes += ("Labels of one participant have no order: they are compared in ascending order.",)
        return Guesses(labels.reshape(-1), drawn.reshape(-1), LABEL, notes)

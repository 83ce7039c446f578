"""What participants of a training sent to whoever adds up their gradients, as an eavesdropper finds it."""

from dataclasses import dataclass

from defenses.updates import Tensors


@dataclass(frozen=True)
class Transcript:
    """One message of each of V participants, and what everybody knows of how messages are made.

    Attributes:
        gradients: name -> (V, *shape of the parameter): the mean gradient over a participant's records, or, after
            several local steps, the change of the weights over the learning rate; whatever protects it has been done.
        batch_size: Records of one participant, B.
        local_steps: Steps that a participant took before it sent, each over all of its records, at least 1.
        learning_rate: Of those steps.
        clipped: Whether each record's gradient was scaled by a number that is not sent along.
        sparsified: Whether numbers that are zero were cut away.
        noise: Standard deviation of what was added to each number, 0 for nothing.
        protection: The same in words, for reports.
    """

    gradients: Tensors
    batch_size: int = 1
    local_steps: int = 1
    learning_rate: float = 0.1
    clipped: bool = False
    sparsified: bool = False
    noise: float = 0.0
    protection: str = "none"

    @property
    def victims(self) -> int:
        """Number of participants V."""
        return len(next(iter(self.gradients.values())))

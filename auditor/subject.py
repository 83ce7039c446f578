"""What is audited: one target, the truth about its candidates, and what is promised of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from attacks.target import Target
from defenses.defense import Defense
from defenses.engine.store import ModelStore
from defenses.guarantee import Guarantee, Unaccounted
from defenses.records import BoolArray, IntArray, Split


@dataclass(frozen=True)
class AttackTarget:
    """One thing that is attacked, and the truth about it.

    Attributes:
        target: What attacks are exposed to.
        included: (m,) whether each candidate was in.
        about: What it is called in reports.
        victims: (V, B) which candidates are behind a transcript, participant by participant; None for anything else.
    """

    target: Target
    included: BoolArray
    about: str = "the trained model"
    victims: IntArray | None = None


@dataclass(frozen=True)
class OnTrust:
    """One thing that an audit takes on trust.

    Attributes:
        what: A sentence, without its subject: "That ...".
        tested: What of it was tested, if anything was.
        about_sides: Whether the findings on the holdout and on the two sides test it, where they find anything.
    """

    what: str
    tested: str | None = None
    about_sides: bool = False


@dataclass(frozen=True)
class Description:
    """What reports say about a kind of target.

    Attributes:
        called: What is attacked, such as "mlp, 1,234 parameters".
        on_trust: What the owner says and the audit did not see, the weightiest first.
        limitations: What an audit of such a target does not show, one sentence each.
        tested_sides: Which of the owner's statements about members are tested: `HOLDOUT` and `SIDES`
            (`reports.records.grounds`); none where the audit drew the members itself.
        digest_is_private: Whether only its owner shall recognise the target's digest; reports hold a keyed one then.
        identities: What tells candidates apart from those of other audits, one each; None for the records themselves.
    """

    called: str
    on_trust: tuple[OnTrust, ...] = ()
    limitations: tuple[str, ...] = ()
    tested_sides: frozenset[str] = frozenset()
    digest_is_private: bool = False
    identities: Sequence[bytes] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class AuditSubject:
    """One target with everything that an audit of it needs.

    Attributes:
        target: What attacks are exposed to.
        split: The truth about the candidates.
        defense: Scheme of the training, `NoDefense` where none is known.
        scheme: What reports call it.
        claimed: What is claimed, if anything.
        proved: What is proved, or why nothing is.
        store: Where this run keeps its models.
        description: What reports say about this kind of target.
        beside: What else is attacked, and was made of the same records: gradients, released records.
        shown: The same made of drawn canaries, which a report may show.
        control: The same job without protection, in the order of `questions`; empty where there is none.
        control_reason: Why there is no control.
        seed_commitment: Salted commitment to the secret seed, or why there is none.
        remarks: Remarks for the provenance, by name.
        missing: What was to be attacked and could not be, one sentence each.
        facts: What the preparation of the target's records made public, by name.
        event: What the training did to the data, as accountants know it; None where that is not known.
        root: Root of the training's coins, sampling and noise; None where it was trained elsewhere.
    """

    target: Target
    split: Split
    defense: Defense
    scheme: str
    claimed: Guarantee | None
    proved: Guarantee | Unaccounted | None
    store: ModelStore
    description: Description = Description("a model")
    beside: tuple[AttackTarget, ...] = ()
    shown: tuple[AttackTarget, ...] = ()
    control: tuple[AttackTarget, ...] = ()
    control_reason: str = ""
    seed_commitment: str = ""
    remarks: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    event: Any = None
    root: int | None = field(default=None, repr=False)

    @property
    def questions(self) -> tuple[AttackTarget, ...]:
        """Everything that is attacked, the target first."""
        return (AttackTarget(self.target, self.split.included), *self.beside)


def module_digest(module: nn.Module) -> str:
    """Return SHA-256 (hex) over the names and bytes of a module's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + b"\0" + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

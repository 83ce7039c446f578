"""What the owner of a target states about it, and which of these statements an audit takes on trust."""

from scipy.stats import binom
from torch import nn

from attacks.target import Target
from auditor.plan.plan import Plan
from auditor.subject import OnTrust
from defenses.errors import DataError
from defenses.guarantee import Guarantee, Neighboring, Unit
from defenses.records import BoolArray, Inclusion, Split

# Fair coins fall this unevenly less than once in a thousand million audits.
_IMPLAUSIBLE = 1e-9


def refuse_unfair(included: BoolArray) -> None:
    """Refuse a split that fair coins do not give, before anything is trained on the word that they did.

    Raises:
        DataError: If the split is that lopsided.
    """
    members, total = int(included.sum()), len(included)
    if 2 * binom.cdf(min(members, total - members), total, 0.5) < _IMPLAUSIBLE:
        raise DataError(
            f"{members} of {total} candidates are members, which fair coins do not do; give both sides as the coins "
            'fell, or inclusion = "fixed"'
        )


def stated_claim(plan: Plan) -> Guarantee | None:
    """Return the claim of a plan, or None where it states none."""
    if plan.claim is None:
        return None
    return Guarantee(
        plan.claim.epsilon,
        plan.claim.delta,
        Neighboring[plan.claim.neighboring.upper()],
        Unit[plan.claim.unit.upper()],
        accountant="claim of the plan",
    )


def network_in_words(plan: Plan, model: nn.Module) -> str:
    """Return what reports call a network: its name in the plan, and its size."""
    assert plan.model is not None
    return f"{plan.model.architecture}, {sum(parameter.numel() for parameter in model.parameters()):,} parameters"


def coins_on_trust(split: Split) -> tuple[OnTrust, ...]:
    """Return what is taken on trust where the owner says that fair coins decided who was a member."""
    if split.inclusion is not Inclusion.INDEPENDENT:
        return ()
    members, total = int(split.included.sum()), len(split.included)
    what = "That each record was a member or not by a fair coin of its own, tossed before the training."
    return (OnTrust(what, tested=f"only that {members:,} members of {total:,} are what fair coins give"),)


def population_on_trust(target: Target, *, compared: bool) -> tuple[OnTrust, ...]:
    """Return what is taken on trust of a population; `compared` if it was made sure that it shares no candidate."""
    if target.population is None:
        return ()
    tested = "only that none of them is a candidate" if compared else None
    return (OnTrust("That no population record was trained on.", tested=tested),)


def claim_on_trust(plan: Plan) -> tuple[OnTrust, ...]:
    """Return what is taken on trust of a plan's claim, if it has one."""
    if plan.claim is None:
        return ()
    said = f"The claimed epsilon {plan.claim.epsilon:g}: nothing of it is proved, and an attack can only refute it."
    return (OnTrust(said),)


MEMBERS = OnTrust(
    "Who was a member: that the target was trained on the declared members, all of them, and on no non-member.",
    about_sides=True,
)

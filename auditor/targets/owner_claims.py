"""What the owner of a target states about it: a claim, and that membership was drawn by fair coins."""

from scipy.stats import binom

from auditor.plan.plan import Plan
from defenses.errors import DataError
from defenses.guarantee import Guarantee, Neighboring, Unit
from defenses.records import BoolArray

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

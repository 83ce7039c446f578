"""What the words of a report mean: finding codes, statuses, exit codes and measures, each with a page to read on."""

from collections.abc import Mapping
from dataclasses import dataclass

from reports.exit_codes import ExitCode
from reports.measures import KNOWN_NAMES, Scale, measure
from reports.pages.wording import STATUS_MEANINGS, STATUS_WORDS
from reports.records.report import Status

FINDING_PAGE, POLICY_PAGE = "docs/findings.md", "docs/policies.md"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What one word of a report means.

    Attributes:
        term: The word, as it stands in a report or in a shell.
        title: The same in plain English.
        meaning: One or more sentences.
        page: File of the documentation that says more.
    """

    term: str
    title: str
    meaning: str
    page: str


CODES: Mapping[str, tuple[str, str]] = {
    "PA001": (
        "Claimed epsilon",
        "Compares the epsilon that is claimed with the lower bound on epsilon that an attack shows.",
    ),
    "PA002": (
        "Proved epsilon",
        "Compares the epsilon that an accountant proves of this training with the lower bound that an attack shows. "
        "It is reported only where the proved epsilon differs from the claimed one.",
    ),
    "PA003": (
        "Clipping and noise of single steps",
        "Compares the epsilon that gradient canaries imply, with [white_box], with the epsilon that is claimed and, "
        "where it differs, with the one that is proved.",
    ),
    "PA004": (
        "Bound on reconstruction",
        "Compares how often an attacker who knows all other records names the added one, with [prior_aware], with the "
        "bound on reconstruction that the scheme implies.",
    ),
    "PA010": (
        "Leak against a limit",
        "Compares the confidence interval of a measure of an attack with a limit of the plan: membership, "
        "reconstruction, hidden values, model extraction or singling out.",
    ),
    "PA020": (
        "Holdout",
        "Tests whether the target fits the declared members as training records and the declared non-members as "
        "records that it was not trained on. While it is inconclusive, no verdict passes.",
    ),
    "PA021": (
        "The two sides",
        "Tests, without asking the model, whether members and non-members look like draws from one source. While it "
        "is inconclusive, no verdict passes.",
    ),
    "PA090": ("Failed attack", "An attack started and did not finish, so the audit is incomplete."),
    "PA091": (
        "Attack that could not run",
        "An attack needs something that this audit does not have. It is an error if the plan asks for the attack.",
    ),
}
"""Finding code -> title, meaning."""

EXIT_CODES: Mapping[ExitCode, str] = {
    ExitCode.PASS: "Every check holds and every required attack ran.",
    ExitCode.EXCEEDED: "A limit is exceeded or a privacy claim is contradicted.",
    ExitCode.USAGE: "The command, the plan or the policy is wrong, or the policy does not fit the report.",
    ExitCode.INCONCLUSIVE: "The audit could not decide. That is not a pass.",
    ExitCode.INCOMPLETE: "An attack failed or was killed, or a required one did not run.",
    ExitCode.NOT_COMPARABLE: "The baseline report cannot be compared with this one.",
}
PRECEDENCE_NOTE = "If several hold, the first of 2, 5, 1, 4, 3 decides."

_SCALES = {Scale.SHARE: "a share", Scale.SCORE: "a number", Scale.NATS: "an epsilon"}


def explain(term: str) -> Explanation | None:
    """Explain a finding code, a status, an exit code or a measure.

    Args:
        term: Such as "PA001", "inconclusive", "3" or "tpr_at_fpr_0.01"; case does not matter, "-" is read as "_".

    Returns:
        The explanation, or None for an unknown term.

    Examples:
        >>> explain("pa001").title
        'Claimed epsilon'
        >>> explain("3").title
        'Exit code 3: inconclusive'
    """
    word = term.strip()
    if word.upper() in CODES:
        title, meaning = CODES[word.upper()]
        return Explanation(term=word.upper(), title=title, meaning=meaning, page=FINDING_PAGE)
    name = word.lower().replace("-", "_").replace(" ", "_")
    if name in {status.value for status in Status}:
        status = Status(name)
        return Explanation(term=name, title=STATUS_WORDS[status], meaning=STATUS_MEANINGS[status], page=FINDING_PAGE)
    if name in {str(int(code)) for code in ExitCode}:
        code = ExitCode(int(name))
        title = f"Exit code {name}: {code.name.lower().replace('_', ' ')}"
        return Explanation(term=name, title=title, meaning=f"{EXIT_CODES[code]} {PRECEDENCE_NOTE}", page=POLICY_PAGE)
    return _explain_measure(name)


def known_terms() -> list[str]:
    """Return every term that can be explained; of measures at a rate, examples."""
    return [*CODES, *(status.value for status in Status), *(str(int(code)) for code in ExitCode), *KNOWN_NAMES]


def _explain_measure(name: str) -> Explanation | None:
    found = measure(name)
    if not found.known:
        return None
    guessing = "not known" if found.baseline is None else f"{found.baseline:g}"
    largest = "no upper end" if found.largest is None else f"at most {found.largest:g}"
    details = f"Written as {_SCALES[found.scale]}, {largest}. Value under guessing: {guessing}."
    return Explanation(
        term=name, title=found.title, meaning=" ".join(filter(None, (found.meaning, details))), page=FINDING_PAGE
    )

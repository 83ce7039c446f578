"""Sample records as an audit would write them: a leaky model, a private one, and ones that could not be judged."""

import itertools
import math
from statistics import NormalDist
from typing import Any

NORMAL = NormalDist()
MEMBERS, NONMEMBERS = 4012, 3988
TPR = "tpr_at_fpr_0.01"


def estimate(value: float | None, half: float = 0.0, **more: Any) -> dict[str, Any]:
    """An estimate with a symmetric interval, cut at 0 and 1."""
    if value is None:
        return {"method": "order statistics", "reason": more.get("reason", "not resolvable with 3,988 non-members")}
    low, high = max(0.0, value - half), min(1.0, value + half)
    return {"value": value, "low": low, "high": high, "level": 0.95, "method": "bootstrap", "n": 8000, **more}


def roc_at(shift: float, fpr: float) -> float:
    """True positive rate of unit Gaussian scores whose means are `shift` apart."""
    if fpr in (0.0, 1.0):
        return fpr
    return NORMAL.cdf(NORMAL.inv_cdf(fpr) + shift)


def measures(shift: float) -> dict[str, Any]:
    half = 0.011
    return {
        "auc": estimate(NORMAL.cdf(shift / math.sqrt(2)), half, method="DeLong"),
        "tpr_at_fpr_0.01": estimate(roc_at(shift, 0.01), 0.2 * roc_at(shift, 0.01), method="order statistics"),
        "tpr_at_fpr_0.001": estimate(None)
        if shift < 0.1
        else estimate(roc_at(shift, 0.001), 0.4 * roc_at(shift, 0.001), method="order statistics"),
        "advantage": estimate(2 * NORMAL.cdf(shift / 2) - 1, 0.02, method="DKW"),
        "ppv_at_prior_0.1": estimate(0.1 + 0.2 * shift, 0.04, method="order statistics"),
    }


def ran(name: str, title: str, shift: float, *, control: float = 1.6, **more: Any) -> dict[str, Any]:
    """An attack that ran on Gaussian scores."""
    grid = [0.0, *(10 ** (-3.6 + 3.6 * step / 80) for step in range(81))]
    tpr = [roc_at(shift, fpr) for fpr in grid]
    edges = [-4 + 0.25 * step for step in range(33)]
    bins = [NORMAL.cdf(right) - NORMAL.cdf(left) for left, right in itertools.pairwise(edges)]
    moved = [NORMAL.cdf(right - shift) - NORMAL.cdf(left - shift) for left, right in itertools.pairwise(edges)]
    return {
        "name": name,
        "title": title,
        "paper": "Carlini et al., Membership Inference Attacks From First Principles, 2022",
        "status": "ran",
        "access": ["logits", "recipe"],
        "parameters": {"shadows": 16, "online": True, "variance": "fixed", "temperature": None},
        "measures": measures(shift),
        "control": measures(control),
        "roc": {
            "fpr": grid,
            "tpr": tpr,
            "tpr_low": [max(0.0, rate - 0.02 * math.sqrt(rate)) * 0.9 for rate in tpr],
            "tpr_high": [min(1.0, rate + 0.02 * math.sqrt(rate) + 0.0008) for rate in tpr],
            "level": 0.95,
            "method": "simultaneous Dvoretzky-Kiefer-Wolfowitz band",
        },
        "histogram": {
            "edges": edges,
            "members": [round(MEMBERS * share) for share in moved],
            "nonmembers": [round(NONMEMBERS * share) for share in bins],
        },
        "exposed": [
            {
                "record": f"{place:02x}7fa2c91be04d6{place:03x}",
                "false_alarms_at_most": 0.002,
                "level": 0.95,
            }
            for place in range(5)
        ],
        "notes": ["3 records were seen by every shadow model and use the pooled mean."],
        **more,
    }


def build(*, shift: float, verdict: str, headline: str, findings: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A whole record as plain data; the verdict-carrying attack is LiRA."""
    return {
        "schema_version": "2.0",
        "subject": {
            "title": "Fashion-MNIST classifier, release candidate 4",
            "model": "cnn, 206,922 parameters",
            "model_digest": "sha256:9f2c1e7ab04d4412f5b7d4a1c3e8f0926a7b5d3c1e2f4a6b8c0d1e3f5a7b9c2d",
            "data": "fashion_mnist, pool of 8,000",
            "data_digest": "sha256:41d0a7c2b9e8f6134a5c7d9e0b2f4a6c8e1d3b5f7a9c0e2d4f6b8a1c3e5d7f90",
            "scheme": "none",
            "scheme_parameters": {},
            "members": MEMBERS,
            "nonmembers": NONMEMBERS,
            "population": 12000,
            "inclusion": "independent fair coins",
            "accuracy_train": estimate(0.9993, 0.0006, method="Wilson"),
            "accuracy_holdout": estimate(0.8871, 0.0098, method="Wilson"),
        },
        "verdict": verdict,
        "headline": headline,
        "findings": findings,
        "attacks": [
            ran("loss_threshold", "Loss threshold", shift * 0.45, notes=[]),
            ran("rmia", "RMIA, 16 reference models", shift * 0.9),
            ran("lira", "LiRA, 16 shadow models", shift),
            {
                "name": "label_only",
                "title": "Label-only, boundary distance",
                "paper": "Choquette-Choo et al., 2021",
                "status": "not_applicable",
                "required": False,
                "reason": "the threat model gives logits, and the plan does not ask for it",
            },
        ],
        "epsilons": {
            "claimed": None,
            "proved": {"epsilon": math.inf, "reason": "trained without noise", "accountant": "none"},
            "shown": None,
            "shown_reason": "no canaries in the plan",
        },
        "blind_spots": [
            "Attacks with access to the weights or to gradients; only logits were used.",
            "What a stronger attack, or one with more shadow models, would find.",
            "Other models trained by the same recipe: the intervals are conditional on this one model.",
        ],
        "provenance": {
            "plan": {
                "attacks": {"names": ["loss_threshold", "rmia", "lira"]},
                "data": {"name": "fashion_mnist", "pool": 8000},
                "model": {"architecture": "cnn", "epochs": 40, "learning_rate": 0.1},
                "title": "Fashion-MNIST classifier, release candidate 4",
            },
            "plan_digest": "sha256:77aa01c2b9e8f6134a5c7d9e0b2f4a6c8e1d3b5f7a9c0e2d4f6b8a1c3e5d7f11",
            "attempt": 1,
            "seed_commitment": "sha256:c0ffee01b9e8f6134a5c7d9e0b2f4a6c8e1d3b5f7a9c0e2d4f6b8a1c3e5d7f22",
            "device": "cpu",
            "settings": {"threads": 2, "stack_width": 8, "compile": False},
            "versions": {"privacy-auditor": "0.1.0", "torch": "2.11.0", "numpy": "2.4.0", "python": "3.11.2"},
        },
        "timing": {"started": "2026-01-15T09:30:00Z", "seconds": {"train": 412.3, "attack": 21.7, "report": 1.9}},
        **more,
    }


def leaky_data() -> dict[str, Any]:
    found = measures(1.3)["tpr_at_fpr_0.01"]
    control = measures(1.6)["tpr_at_fpr_0.01"]
    low = measures(1.3 * 0.45)["tpr_at_fpr_0.01"]
    return build(
        shift=1.3,
        verdict="leaks",
        headline="LiRA finds 15.2% of members at 1% false alarms (95% CI 12.2% to 18.3%), limit 3%.",
        findings=[
            {
                "code": "PA002",
                "status": "inconclusive",
                "title": "Loss threshold against the limit",
                "sentence": "Loss threshold finds 4.08% of members at 1% false alarms, limit 3%.",
                "attack": "loss_threshold",
                "measure": "tpr_at_fpr_0.01",
                "limit": 0.03,
                "found": {**low, "low": 0.021},
                "control": control,
            },
            {
                "code": "PA001",
                "status": "leaks",
                "title": "LiRA finds more members than the limit allows",
                "sentence": "LiRA finds 15.2% of members at 1% false alarms (95% CI 12.2% to 18.3%), limit 3%.",
                "attack": "lira",
                "measure": "tpr_at_fpr_0.01",
                "limit": 0.03,
                "found": found,
                "control": control,
                "more": "docs/findings.md#PA001",
            },
            {
                "code": "PA010",
                "status": "information",
                "title": "No claim to check",
                "sentence": "The model makes no claim of privacy.",
                "measure": "epsilon",
                "control_reason": "nothing was judged",
            },
        ],
    )


def private_data() -> dict[str, Any]:
    found = estimate(0.0113, 0.0042, method="order statistics")
    data = build(
        shift=0.03,
        verdict="consistent",
        headline="No attack contradicts the claimed epsilon of 2 at delta 1e-5: at least 0.31 was shown, "
        "and up to 5.77 could have been.",
        findings=[
            {
                "code": "PA001",
                "status": "within",
                "title": "LiRA stays within the limit",
                "sentence": "LiRA finds 1.13% of members at 1% false alarms (95% CI 0.710% to 1.55%), limit 3%.",
                "attack": "lira",
                "measure": "tpr_at_fpr_0.01",
                "limit": 0.03,
                "found": found,
                "control": measures(1.6)["tpr_at_fpr_0.01"],
            },
            {
                "code": "PA011",
                "status": "consistent",
                "title": "The claimed epsilon is not contradicted",
                "sentence": "Epsilon is at least 0.31 at delta 1e-5 (95% confidence); claimed 2; up to 5.77 possible.",
                "attack": "lira",
                "measure": "epsilon",
                "limit": 2.0,
                "found": {"value": 0.31, "low": 0.31, "level": 0.95, "method": "one run", "n": 1000, "unit": "canary"},
                "control": {"value": 3.9, "low": 3.9, "level": 0.95, "method": "one run", "n": 1000, "unit": "canary"},
            },
        ],
        epsilons={
            "claimed": {
                "epsilon": 2.0,
                "delta": 1e-5,
                "neighboring": "ADD_REMOVE",
                "unit": "RECORD",
                "accountant": "the model card",
            },
            "proved": {
                "epsilon": 1.98374,
                "delta": 1e-5,
                "neighboring": "ADD_REMOVE",
                "unit": "RECORD",
                "accountant": "dp-accounting PLD",
                "assumptions": ["Poisson sampling", "the noise was drawn from a secret seed"],
            },
            "shown": {
                "lower": 0.31,
                "delta": 1e-5,
                "neighboring": "ADD_REMOVE",
                "unit": "RECORD",
                "confidence": 0.95,
                "method": "one run (Steinke, Nasr, Jagielski 2023)",
                "kind": "confidence",
                "assumptions": ["canaries were included by independent fair coins"],
                "ceiling": 5.77,
                "attack": "lira",
                "canaries": 1000,
                "guesses": 200,
                "correct": 131,
            },
        },
    )
    data["subject"]["scheme"] = "dp_sgd"
    data["subject"]["scheme_parameters"] = {
        "noise_multiplier": 1.1,
        "max_grad_norm": 1.0,
        "sampling_probability": 0.064,
        "target_epsilon": 2.0,
    }
    data["subject"]["accuracy_train"] = estimate(0.8012, 0.012)
    data["subject"]["accuracy_holdout"] = estimate(0.7921, 0.013)
    return data


def undecided_data() -> dict[str, Any]:
    data = build(
        shift=0.25,
        verdict="inconclusive",
        headline="LiRA finds 2.61% of members at 1% false alarms (95% CI 1.70% to 3.80%), limit 3%: the interval "
        "straddles the limit.",
        findings=[
            {
                "code": "PA001",
                "status": "inconclusive",
                "title": "LiRA cannot be told from the limit",
                "sentence": "LiRA finds 2.61% of members at 1% false alarms (95% CI 1.70% to 3.80%), limit 3%.",
                "attack": "lira",
                "measure": "tpr_at_fpr_0.01",
                "limit": 0.03,
                "found": estimate(0.0261, 0.0, low=0.017, high=0.038),
                "control_reason": "the control model could not be trained",
            },
            {
                "code": "PA020",
                "status": "error",
                "title": "RMIA did not finish",
                "sentence": "RMIA was killed after 3 of 16 reference models.",
                "attack": "rmia",
                "control_reason": "the attack did not run",
            },
        ],
        epsilons={
            "claimed": {"epsilon": 8.0, "delta": 1e-5, "neighboring": "REPLACE_ONE", "unit": "RECORD"},
            "proved": {"reason": "layerwise clipping without a public sensitivity has no known accountant"},
            "shown": None,
            "shown_reason": "members were not drawn by independent coins",
        },
    )
    data["verdict"] = "error"
    data["headline"] = "RMIA was killed after 3 of 16 reference models, so the audit is incomplete."
    data["attacks"][1] = {
        "name": "rmia",
        "title": "RMIA, 16 reference models",
        "paper": "Zarifzadeh et al., 2024",
        "status": "failed",
        "reason": "killed: out of memory while training reference model 4 of 16",
    }
    return data


def inconclusive_data() -> dict[str, Any]:
    """Nothing failed; the interval straddles the limit."""
    data = undecided_data()
    data["attacks"][1] = ran("rmia", "RMIA, 16 reference models", 0.2)
    data["findings"] = data["findings"][:1]
    data["verdict"] = "inconclusive"
    data["headline"] = data["findings"][0]["sentence"][:-1] + ": the interval straddles the limit."
    return data


def policy_text(maximum: float | str = 0.03, *, attack: str | None = "lira", measure: str = TPR, top: str = "") -> str:
    """A policy of one rule; `top` goes before it."""
    written = f'"{maximum}"' if isinstance(maximum, str) else str(maximum)
    lines = [top, "[[rules]]", f'measure = "{measure}"', f"maximum = {written}"]
    return "\n".join([*lines, *([f'attack = "{attack}"'] if attack else [])])

"""Measures of attacks from scores, with intervals that cover at finite sample sizes.

Examples:
    >>> from auditor.statistics import auc
    >>> auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True], level=0.95).value
    0.75
"""

from auditor.statistics.curves import roc_curve as roc
from auditor.statistics.membership import advantage, auc, positive_predictive_value, rate, tpr_at_fpr

__all__ = ["advantage", "auc", "positive_predictive_value", "rate", "roc", "tpr_at_fpr"]

"""Attribute inference from the inside of models that are simple enough: margins of linear ones, leaf counts of trees.

No attack of the catalogue: for a linear model the weights say exactly what its answers say, so `attribute_inference`
finds as much without them; and trees are no networks. The functions serve who holds such a model and its records.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax

from defenses.records import BoolArray, IntArray

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

Float64Array = npt.NDArray[np.float64]


def linear_posterior(
    weight: npt.ArrayLike,
    bias: npt.ArrayLike,
    x: npt.ArrayLike,
    y: IntArray,
    *,
    at: slice,
    values: npt.ArrayLike,
    prior: npt.ArrayLike,
) -> Float64Array:
    """Return how likely each value of a hidden attribute is, given a linear classifier and the true label.

    The margin of each value is that of the rest of the record plus the value's own share, so all values cost one matrix
    product; the posterior is the prior times the softmax probability of the label.

    Args:
        weight: (C, d) as in `torch.nn.Linear`; (1, d), as scikit-learn has for two classes, is the margin of class 1.
        bias: (C,) or (1,).
        x: (m, d) records; what they hold in the hidden features is not looked at.
        y: (m,) labels.
        at: Which features are hidden.
        values: (V, width) what those features hold for each value of the attribute.
        prior: (V,), or (m, V) where it depends on the record; need not add up to 1.

    Returns:
        (m, V), each row adding up to 1.

    Raises:
        ValueError: If shapes do not fit, or a prior is negative or nothing but 0.

    Examples:
        >>> linear_posterior([[0.0, np.log(3)]], [0.0], [[1.0, 0.0]], np.array([1]), at=slice(1, 2),
        ...     values=[[0.0], [1.0]], prior=[0.5, 0.5]).round(6)
        array([[0.4, 0.6]])

    Source: Fredrikson et al. 2014, "Privacy in Pharmacogenetics", algorithm 1; Yeom et al. 2018, "Privacy Risk in
    Machine Learning", section 4. Deviation: the error of a classifier is measured by its own softmax, where they take
    the confusion matrix, or the distribution of a regression's errors.
    """
    w, b, rows = (np.asarray(given, dtype=np.float64) for given in (weight, bias, x))
    options = np.asarray(values, dtype=np.float64)
    if len(w) == 1:
        w, b = np.vstack([np.zeros_like(w), w]), np.concatenate([np.zeros_like(b), b])
    chances = _checked(rows, options, prior, at=at, features=w.shape[1])
    rest = rows.copy()
    rest[:, at] = 0
    logits = (rest @ w.T + b)[:, None, :] + (options @ w[:, at].T)[None]
    likelihood = log_softmax(logits, axis=2)[np.arange(len(rows)), :, y]
    with np.errstate(divide="ignore"):
        return np.asarray(softmax(np.log(chances) + likelihood, axis=1))


def tree_posterior(
    tree: "DecisionTreeClassifier | DecisionTreeRegressor",
    x: npt.ArrayLike,
    *,
    at: slice,
    values: npt.ArrayLike,
    prior: npt.ArrayLike,
    y: IntArray | None = None,
) -> Float64Array:
    """Return how likely each value of a hidden attribute is, given a decision tree with the counts of its leaves.

    A value v sends the record to one leaf. The share of training records in that leaf, among the leaves that people
    with value v can reach, estimates how usual the record is for people with v; times the prior, that is Bayes' rule.

    Args:
        tree: Fitted by scikit-learn, which keeps how many training records each leaf holds.
        x: (m, d) records; what they hold in the hidden features is not looked at.
        at: Which features are hidden.
        values: (V, width) what those features hold for each value of the attribute.
        prior: (V,), or (m, V) where it depends on the record; need not add up to 1.
        y: (m,) true labels as positions in `tree.classes_`; given them, only training records of that label count.

    Returns:
        (m, V), each row adding up to 1; the prior where no leaf holds a record of the label.

    Raises:
        ValueError: If shapes do not fit, or a prior is negative or nothing but 0.

    Source: Fredrikson, Jha and Ristenpart 2015, "Model Inversion Attacks that Exploit Confidence Information", the
    white-box attack with counts. Deviations: the leaves that a value can reach are read off the tree, not off the
    records under attack; and the label may be used, by the counts per class that scikit-learn stores.
    """
    rows, options = np.asarray(x, dtype=np.float32), np.asarray(values, dtype=np.float32)
    nodes = tree.tree_
    chances = _checked(rows, options, prior, at=at, features=int(nodes.n_features))
    count = np.asarray(nodes.n_node_samples, dtype=np.float64)
    within = np.ones((len(rows), len(options)))
    share = np.asarray(nodes.value[:, 0], dtype=np.float64)
    share = share / share.sum(axis=1, keepdims=True) if y is not None else share
    for number, option in enumerate(options):
        filled = rows.copy()
        filled[:, at] = option
        leaf = nodes.apply(filled)
        within[:, number] = count[leaf] / count[reachable(tree, at=at, value=option)].sum()
        if y is not None:
            within[:, number] *= share[leaf, y]
    found = chances * within
    found = np.where(found.sum(axis=1, keepdims=True) > 0, found, chances)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def reachable(tree: "DecisionTreeClassifier | DecisionTreeRegressor", *, at: slice, value: npt.ArrayLike) -> BoolArray:
    """Return which nodes (k,) of a tree are leaves that some record with this value reaches.

    Args:
        tree: Fitted by scikit-learn.
        at: Which features the attribute fills.
        value: (width,) what they hold.
    """
    nodes = tree.tree_
    fixed = dict(zip(range(int(nodes.n_features))[at], np.asarray(value, dtype=np.float32), strict=True))
    found = np.zeros(int(nodes.node_count), dtype=np.bool_)
    waiting = [0]
    while waiting:
        node = waiting.pop()
        left, right, feature = nodes.children_left[node], nodes.children_right[node], int(nodes.feature[node])
        if left == right:
            found[node] = True
        elif feature not in fixed:
            waiting += [left, right]
        else:
            waiting.append(left if fixed[feature] <= nodes.threshold[node] else right)
    return found


def _checked(
    rows: npt.NDArray[np.floating], options: npt.NDArray[np.floating], prior: npt.ArrayLike, *, at: slice, features: int
) -> Float64Array:
    """Return the prior as (m, V) after checking that everything fits."""
    if rows.ndim != 2 or rows.shape[1] != features:
        raise ValueError(f"records have shape {rows.shape}; the model takes (m, {features})")
    width = len(range(features)[at])
    if options.ndim != 2 or options.shape[1] != width or not width:
        raise ValueError(f"values have shape {options.shape}; {width} features are hidden, so give (V, {width})")
    chances = np.asarray(prior, dtype=np.float64)
    if chances.shape not in ((len(options),), (len(rows), len(options))):
        raise ValueError(f"the prior has shape {chances.shape}; give ({len(options)},) or one row for each record")
    chances = np.broadcast_to(chances, (len(rows), len(options)))
    if not (np.isfinite(chances).all() and (chances >= 0).all() and (chances.sum(axis=1) > 0).all()):
        raise ValueError("a prior is negative, not finite, or nothing but 0; give weights of at least 0")
    return chances

"""The figures: conclusions in the alternative text, odd records survived, nothing global touched."""

import math
from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from reports.pages import figures
from reports.pages.drawing import Drawing
from reports.records.report import Report


def well_formed(drawing: Drawing | None) -> Drawing:
    assert drawing is not None
    assert ElementTree.fromstring(drawing.svg).tag.endswith("svg")
    return drawing


def test_roc_states_the_finding_and_every_auc(leaky: Report) -> None:
    alt = well_formed(figures.roc(leaky)).alt
    assert "Leaks: LiRA finds 15.2% of members at 1% false alarms (95% CI 12.2% to 18.3%), limit 3%." in alt
    assert "LiRA, 16 shadow models: AUC 0.821 (95% CI 0.810 to 0.832)" in alt
    assert "Loss threshold: AUC" in alt


def test_roc_of_a_report_whose_verdict_is_about_epsilon_speaks_of_the_roc(private: Report) -> None:
    alt = well_formed(figures.roc(private)).alt
    assert "Within the limit: LiRA finds 1.13%" in alt
    assert "Epsilon" not in alt


def test_roc_follows_an_attack_that_ran_where_the_worst_one_did_not(incomplete: Report) -> None:
    assert "LiRA finds 2.61%" in well_formed(figures.roc(incomplete)).alt


def test_no_curve_no_figure(leaky: Report, change: Callable[..., Report]) -> None:
    assert figures.roc(change(leaky, "attacks", [])) is None
    without = change(leaky, "attacks/2/histogram", None)
    assert figures.histogram(without.attacks[2]) is None


def test_histogram_says_whether_members_stand_out(leaky: Report, private: Report) -> None:
    assert "Members score higher than non-members: AUC 0.821" in well_formed(figures.histogram(leaky.attacks[2])).alt
    alt = well_formed(figures.histogram(private.attacks[2])).alt
    assert "cannot be told apart: AUC 0.508 (95% CI 0.497 to 0.519)" in alt


def test_epsilon_states_all_three_and_the_ceiling(private: Report) -> None:
    alt = well_formed(figures.epsilon(private)).alt
    assert "Claimed: epsilon at most 2.00 at delta 1e-5" in alt
    assert "Proved: epsilon at most 1.99 at delta 1e-5" in alt
    assert "Shown: epsilon at least 0.31 at delta 1e-5 (95% confidence), ceiling 5.77" in alt
    assert "No contradiction found" in alt


def test_epsilon_says_in_words_what_is_no_number(leaky: Report, incomplete: Report) -> None:
    alt = well_formed(figures.epsilon(leaky)).alt
    assert "Claimed: nothing is claimed. Proved: infinite: nothing is promised" in alt
    assert "Shown: nothing was shown: no canaries in the plan" in alt
    assert "Proved: unaccounted: layerwise" in well_formed(figures.epsilon(incomplete)).alt


@pytest.mark.parametrize("claimed", [0.0, 1e-6, 8.0, 1e6, math.inf])
@pytest.mark.parametrize("ceiling", [0.5, math.inf])
def test_epsilon_of_any_size_is_drawn(
    private: Report, change: Callable[..., Report], claimed: float, ceiling: float
) -> None:
    report = change(change(private, "epsilons/claimed/epsilon", claimed), "epsilons/shown/ceiling", ceiling)
    well_formed(figures.epsilon(report))


def test_odd_scores_are_drawn(leaky: Report, change: Callable[..., Report]) -> None:
    edges = list(leaky.attacks[2].histogram.edges) if leaky.attacks[2].histogram else []
    edges[0], edges[-1] = -math.inf, math.inf
    well_formed(figures.histogram(change(leaky, "attacks/2/histogram/edges", edges).attacks[2]))
    nobody = change(leaky, "attacks/2/histogram/nonmembers", [0] * (len(edges) - 1))
    assert figures.histogram(nobody.attacks[2]) is None
    flat = {"fpr": [0.0, 1.0], "tpr": [0.0, 1.0], "tpr_low": [0.0, 0.0], "tpr_high": [1.0, 1.0]}
    flat |= {"level": 0.95, "method": "m"}  # type: ignore[dict-item]
    well_formed(figures.roc(change(leaky, "attacks/2/roc", flat)))


def test_limits_and_findings_at_zero_are_drawn_on_log_axes(leaky: Report, change: Callable[..., Report]) -> None:
    zero = {"value": 0.0, "low": 0.0, "high": 0.001, "level": 0.95, "method": "m"}
    report = change(change(leaky, "findings/1/found", zero), "findings/1/limit", 0.0)
    well_formed(figures.roc(report))
    well_formed(figures.roc(change(leaky, "subject/nonmembers", 0)))


@pytest.mark.parametrize(
    "title",
    [
        "$x^2$ and $\\undefined{",
        "control \x00\x1b characters -- in a comment -->",
        "\u6f22\u5b57 \U0001f600 not in the font",
        "long " * 60,
        "",
        "<script>&amp;",
    ],
)
def test_no_title_breaks_a_figure(leaky: Report, change: Callable[..., Report], title: str) -> None:
    report = change(change(leaky, "attacks/2/title", title), "epsilons/shown_reason", title)
    well_formed(figures.roc(report))
    well_formed(figures.epsilon(report))


def test_the_users_own_style_changes_nothing_and_is_left_alone(leaky: Report) -> None:
    plain = figures.roc(leaky)
    with mpl.rc_context({"font.size": 33.0, "axes.facecolor": "red", "svg.fonttype": "none"}):
        names = set(mpl.rcParams) - {"backend"}  # reading that one would choose it
        before = {name: mpl.rcParams[name] for name in names}
        styled = figures.roc(leaky)
        assert {name: mpl.rcParams[name] for name in names} == before
    assert styled == plain


def test_pyplot_knows_of_no_figure(leaky: Report) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    figures.roc(leaky)
    assert plt.get_fignums() == before


def test_figures_hold_no_date(leaky: Report) -> None:
    drawing = well_formed(figures.roc(leaky))
    assert "<dc:date>" not in drawing.svg
    assert "http://www.w3.org" in drawing.svg  # name spaces only
    assert 'href="http' not in drawing.svg

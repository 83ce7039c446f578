"""An experiment done again: outcomes follow from figures, and nothing that failed goes unsaid."""

from typing import Any

import pytest
from pydantic import ValidationError

from reports.pages.reproduction_page import (
    headline,
    ours_in_words,
    paper_in_words,
    render_reproduction,
    reproduction_markdown,
)
from reports.records.estimate import Estimate
from reports.records.reproduction import Chart, Outcome, Reproduction, Row, Series, compared


def figure(value: float) -> Estimate:
    return Estimate(value=value, low=value - 1, high=value + 1, level=0.95, method="given", n=100)


def sample() -> Reproduction:
    return Reproduction(
        paper="P9",
        title="An <experiment>",
        scale=0.25,
        setting="fewer records",
        rows=[
            compared("accuracy", "sigma 8", paper=90.0, ours=figure(89.5), tolerance=2.0),
            compared("accuracy", "sigma 4", paper=95.0, ours=figure(89.5), tolerance=2.0, note="tried more epochs"),
            compared("accuracy", "sigma 2", paper=97.0, ours=figure(89.5), note="another network"),
            compared("price", "sigma 2", paper=None, ours=figure(1.5)),
            compared("time", "sigma 2", paper=3.0, ours=None, note="no such machine"),
        ],
        charts=[
            Chart(title="curves", x_label="epochs", y_label="accuracy", series=[Series(name="a", x=[1, 2], y=[3, 4])])
        ],
        choices=["the network"],
        tried=["more epochs"],
        seconds=12.0,
    )


def test_outcomes_follow_from_the_figures() -> None:
    assert [row.outcome for row in sample().rows] == [
        Outcome.REPRODUCED,
        Outcome.NOT_REPRODUCED,
        Outcome.NOT_COMPARABLE,
        Outcome.OURS_ALONE,
        Outcome.NOT_COMPARABLE,
    ]
    assert headline(sample()) == (
        "Of 4 comparisons with what the paper states, 1 came out, 1 did not, and 2 cannot be made."
    )


def test_what_was_not_measured_needs_its_reason() -> None:
    with pytest.raises(ValidationError, match="says why in `note`"):
        compared("time", "s", paper=3.0, ours=None)
    with pytest.raises(ValidationError, match="needs the paper's figure"):
        Row(what="a", setting="b", paper=None, ours=figure(1.0), outcome=Outcome.REPRODUCED)
    with pytest.raises(ValidationError, match="lengths"):
        Series(name="a", x=[1, 2], y=[3])


def test_page_and_markdown_say_all_of_it_and_escape_it() -> None:
    page, text = render_reproduction(sample()), reproduction_markdown(sample())
    assert page == render_reproduction(sample())
    assert "&lt;experiment&gt;" in page
    assert "<experiment>" not in page
    for said in ("not reproduced", "no such machine", "tried more epochs", "25% of the full size"):
        assert said in page
        assert said in text


def row(ours: Estimate | None, **others: Any) -> Row:
    return compared("figure", "setting", **{"paper": 1.0, "tolerance": 0.5, "note": "a note"} | others, ours=ours)


def test_a_limit_of_the_paper_is_kept_by_anything_below_it() -> None:
    below, above = figure(0.2), figure(1.6)
    assert row(below).outcome is Outcome.NOT_REPRODUCED
    assert row(below, at_most=True).outcome is Outcome.REPRODUCED
    assert row(above, at_most=True).outcome is Outcome.NOT_REPRODUCED
    assert paper_in_words(row(below, at_most=True)) == "at most 1"
    text = reproduction_markdown(sample().model_copy(update={"rows": [row(below, at_most=True, tolerance=0.0)]}))
    assert "tolerance" not in text  # a limit has none
    assert "tolerance 0.5" in reproduction_markdown(sample().model_copy(update={"rows": [row(above)]}))


def test_our_figure_has_its_interval_and_level_or_the_reason_why_it_is_missing() -> None:
    assert ours_in_words(row(figure(1.5))) == "1.5 (95% CI 0.5 to 2.5)"
    assert ours_in_words(row(figure(-1.0))) == "-1 (95% CI -2 to 0)"  # an end at zero is an end
    assert ours_in_words(row(Estimate(value=4.0049, low=4.0049, level=0.95, method="given"))) == (
        "at least 4.00 (95% confidence)"
    )
    assert ours_in_words(row(Estimate(value=123_456.7, method="given"))) == "123,457"
    assert ours_in_words(row(Estimate(value=float("inf"), method="given"))) == "infinite"
    none = row(Estimate(reason="no <b>, up to 8", method="given"))
    assert (ours_in_words(none), ours_in_words(row(None))) == ("none", "not measured")
    found = sample().model_copy(update={"rows": [none]})
    assert "a note; no &lt;b&gt;, up to 8" in render_reproduction(found)
    assert "a note; no" in reproduction_markdown(found)

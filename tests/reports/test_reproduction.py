"""An experiment done again: outcomes follow from figures, and nothing that failed goes unsaid."""

import pytest
from pydantic import ValidationError

from reports.estimate import Estimate
from reports.reproduction import Chart, Outcome, Reproduction, Row, Series, compared
from reports.reproduction_page import headline, render_reproduction, reproduction_markdown


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
        "Of 4 figures that the paper states, 1 came out here, 1 did not, and 2 cannot be compared."
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
    for said in ("not reproduced", "no such machine", "tried more epochs", "25% of the paper"):
        assert said in page
        assert said in text

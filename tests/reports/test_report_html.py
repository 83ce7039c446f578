"""The HTML file: self-contained, escaped, strict, and saying the verdict, its numbers and its limits."""

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from reports.pages import report_page
from reports.records.report import Report

_rendered: dict[str, str] = {}


def render(report: Report) -> str:
    """Render each record once: it is a pure function, and most of these tests look at the same four pages."""
    key = report.to_json()
    if key not in _rendered:
        _rendered[key] = report_page.render(report)
    return _rendered[key]


VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Tags with their attributes, all text, and whether tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.style = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


REPORTS = ["leaky", "private", "incomplete", "inconclusive"]


@pytest.fixture(params=REPORTS)
def report(request: pytest.FixtureRequest) -> Report:
    found: Report = request.getfixturevalue(request.param)
    return found


def test_nothing_is_fetched_and_nothing_runs(report: Report) -> None:
    text = render(report)
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "form", "base"})
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("style", "srcset"), (tag, name)
            if name in ("src", "href"):
                assert (value or "").startswith(("data:image/svg+xml;base64,", "#")), value
    assert "url(" not in page.style
    assert "@import" not in page.style


def test_policy_allows_the_one_style_sheet_and_images_only(leaky: Report) -> None:
    page = Page(render(leaky))
    policies = [meta["content"] for meta in page.every("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policies == [
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    ]
    assert len(page.every("style")) == 1


def test_the_policy_comes_before_anything_it_must_cover(leaky: Report) -> None:
    text = render(leaky)
    assert text.index("Content-Security-Policy") < text.index("<style>") < text.index("<img")


def test_everything_from_the_record_is_escaped(leaky: Report, change: Callable[..., Report]) -> None:
    attack = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    places = [
        "headline",
        "subject/title",
        "subject/model",
        "subject/model_digest",
        "findings/0/title",
        "findings/0/sentence",
        "findings/0/code",
        "findings/1/more",
        "attacks/2/title",
        "attacks/2/name",
        "attacks/2/paper",
        "attacks/2/exposed/0/record",
        "attacks/2/notes",
        "attacks/2/parameters",
        "attacks/2/measures/auc/method",
        "attacks/3/reason",
        "epsilons/shown_reason",
        "blind_spots/0",
        "provenance/plan",
        "provenance/versions",
        "timing/started",
    ]
    report = leaky
    for place in places:
        plural = {"attacks/2/notes": [attack], "attacks/2/parameters": {attack: attack}}
        plural |= {"provenance/plan": {attack: attack}, "provenance/versions": {attack: attack}}
        report = change(report, place, plural.get(place, attack))
    text = render(report)
    page = Page(text)
    assert "<script" not in text
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    assert page.words.count("<script>alert(1)</script>") >= len(places) - 3  # digests are shortened
    assert all((image["src"] or "").startswith("data:") for image in page.every("img"))


def test_every_image_is_well_formed_and_has_its_conclusion_as_text(report: Report) -> None:
    images = Page(render(report)).every("img")
    assert images
    for image in images:
        prefix, _, payload = (image["src"] or "").partition(",")
        assert prefix == "data:image/svg+xml;base64"
        root = ElementTree.fromstring(base64.b64decode(payload))
        assert root.tag.endswith("svg")
        assert re.search(r"\d", image["alt"] or ""), image["alt"]


def test_the_first_thing_read_is_the_verdict_in_words_with_numbers(leaky: Report) -> None:
    page = Page(render(leaky))
    words = page.words
    assert words.index("Leaks") < words.index(leaky.headline) < words.index("What was audited")
    assert words.index("What was audited") < words.index("Findings, worst first") < words.index("Epsilon: claimed")
    assert page.every("html")[0]["lang"] == "en"
    assert any(meta.get("name") == "viewport" for meta in page.every("meta"))


def test_findings_come_worst_first_with_limit_interval_n_and_control(leaky: Report) -> None:
    words = Page(render(leaky)).words
    table = words[words.index("Findings, worst first") : words.index("What this audit does not show")]
    assert table.index("PA001") < table.index("PA002") < table.index("PA010")
    row = table[table.index("PA001") : table.index("PA002")]
    for wanted in ("3%", "15.2%", "95% CI 12.2% to 18.3%", "8,000 records", "23.4%", "95% CI 18.7% to 28.1%"):
        assert wanted in row


def test_the_figure_of_the_verdict_comes_first(leaky: Report, private: Report) -> None:
    first = Page(render(leaky)).every("img")[0]["alt"] or ""
    assert first.startswith("ROC")
    assert "15.2% of members at 1% false alarms" in first
    first = Page(render(private)).every("img")[0]["alt"] or ""
    assert first.startswith("Epsilon")
    assert "at least 0.31" in first


def test_what_did_not_run_and_why(incomplete: Report) -> None:
    words = Page(render(incomplete)).words
    rest = words[words.index("Attacks that did not run") :]
    assert "Failed (required) RMIA, 16 reference models rmia killed: out of memory" in rest
    assert "Not applicable Label-only, boundary distance" in rest


def test_epsilon_in_words_where_there_is_no_number(leaky: Report, incomplete: Report) -> None:
    words = Page(render(leaky)).words
    assert "Nothing is claimed" in words
    assert "Infinite: nothing is promised (trained without noise)" in words
    assert "Nothing was shown: no canaries in the plan" in words
    assert "Unaccounted: layerwise clipping" in Page(render(incomplete)).words


def test_the_report_says_that_the_audit_read_private_data(report: Report) -> None:
    words = Page(render(report)).words
    assert "The audit itself read private training records." in words
    assert "no epsilon in it covers that" in words
    for spot in report.blind_spots:
        assert spot in words


def test_the_plan_and_the_digests_are_there_in_full(private: Report) -> None:
    words = Page(render(private)).words
    for digest in (private.subject.model_digest, private.subject.data_digest, private.provenance.plan_digest):
        assert digest in words
    assert 'architecture = "cnn"' in words
    assert private.provenance.seed_commitment in words


def test_an_empty_report_still_renders(leaky: Report, change: Callable[..., Report]) -> None:
    report = change(change(change(leaky, "attacks", []), "findings", []), "blind_spots", [])
    words = Page(render(report)).words
    assert "Nothing was judged." in words
    assert "No attack ran." in words
    assert "No audit is without one" in words


def test_the_gallery_says_whose_records_it_shows(leaky: Report, change: Callable[..., Report]) -> None:
    item = {
        "attack": leaky.attacks[0].name, "synthetic": False, "measure": "structural similarity",
        "reconstruction": {"png": "AAAA"}, "training": {"png": "BBBB"}, "similarity_training": 0.91,
        "holdout": {"fields": {"<age>": "41"}}, "similarity_holdout": 0.2,
    }  # fmt: skip
    text = render(change(leaky, "gallery", [item]))
    words = Page(text).words
    assert "data:image/png;base64,AAAA" in text
    assert "<age>" in words  # escaped, so it is text
    assert "0.910" in words
    assert "It shows 1 private records themselves" in words
    drawn = Page(render(change(leaky, "gallery", [item | {"synthetic": True}]))).words
    assert "no private record is shown" in drawn
    assert "private records themselves" not in drawn

"""Noisy tables of counts, synthetic rows drawn from them, and a model trained on those rows (Yang et al. 2024)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import dp_accounting
import numpy as np

from defenses.defense import Defense, History, Prepared
from defenses.errors import TrainingError
from defenses.events import PureDpEvent
from defenses.guarantee import Guarantee, Neighboring, Unaccounted
from defenses.mechanisms.tables.domains import Bins
from defenses.mechanisms.tables.encoded import Layout, layout_of
from defenses.mechanisms.tables.margins import Ways, margins_of
from defenses.mechanisms.tables.released import NUMBER_RELEASED, Released, release
from defenses.modes import Mode
from defenses.randomness import stream
from defenses.records import Records, Table


@dataclass(frozen=True, kw_only=True)
class Marginals(Defense):
    """Train on synthetic rows that are drawn from noisy histograms and contingency tables.

    The rows are counted by the cells of one- and two-column tables (a number by public bins), each count gets integer
    Laplace noise, and rows are drawn from the noisy tables. The tables are the release: the rows, any number of them,
    and all that is trained on them, are post-processing.

    `literal` spends epsilon on each table (noise of scale 1 / epsilon), whatever their number, clips each at zero,
    normalises it, and draws as many rows as there were. The paper states epsilon; k tables cost k epsilon, and twice
    that for a replaced record, which is what it is priced at. `repaired` splits epsilon evenly over the tables, and the
    noise follows the neighbouring relation; tables are made to agree, which costs nothing
    (`defenses.mechanisms.tables`).

    The noise of a model is drawn exactly, like opendp's, but from a key that its seed gives: opendp's noise cannot be
    repeated, and a model of an audit must be a function of its seed. `defenses.mechanisms.tables.release_tables` uses
    opendp.

    Attributes:
        epsilon: Of all tables together; in literal mode of each. In nats, above 0 and finite.
        mode: Reading.
        tables: Which tables: `two_way` for instance, or a list of tables, each one or two column names. The label is a
            column, and what is in no declared column is called `feature_<number>`.
        public_size: Whether the number of records is public. The guarantee is then for one record replaced, else for
            one added or removed, and the number of rows comes from the noisy counts.
        bins: Equal bins for each number that `edges` does not name, at least 1.
        edges: Bin edges of numeric columns by name, in the source's units, as pairs (name, edges).
        feature_range: Public range of features that belong to no declared column; what is outside counts at its end.
        rows: How many rows to draw, a public number; None: as many as there are or seem to be.

    Raises:
        ValueError: If a value is out of range.

    Source: Yang et al. 2024, "AI-Driven Anonymization", sections 3.1 to 3.4. The text is silent on how rows come from
    several overlapping pairs; both modes draw along a spanning tree. Its bins (one per age from 0 to 100) are public;
    its contingency table takes the values that occur, and here the public domain stands for them.
    """

    epsilon: float
    mode: Mode = Mode.REPAIRED
    tables: Ways | tuple[tuple[str, ...], ...] = Ways.WITH_LABEL
    public_size: bool = True
    bins: int = 20
    edges: tuple[tuple[str, tuple[float, ...]], ...] = ()
    feature_range: tuple[float, float] = (0.0, 1.0)
    rows: int | None = None

    name = "marginals"
    title = "synthetic rows from noisy marginals"
    paper = (
        "Yang et al. 2024, AI-Driven Anonymization: Protecting Personal Data Privacy While Leveraging Machine Learning"
    )
    example = {"epsilon": 1.0}

    def __post_init__(self) -> None:
        if not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise ValueError(f"epsilon is {self.epsilon}; it must be above 0 and finite")
        if self.bins < 1:
            raise ValueError(f"bins is {self.bins}; it must be at least 1")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows is {self.rows}; give a number of at least 1, or leave it out")
        low, high = self.feature_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"feature_range is {self.feature_range}; give two finite numbers, the smaller first")
        for _, edges in self.edges:
            Bins(edges)
        named = [name for name, _ in self.edges]
        if len(set(named)) < len(named):
            raise ValueError(f"edges name {named}, a column twice; give its edges once")
        if not isinstance(self.tables, Ways) and not self.tables:
            raise ValueError("tables is an empty list; name at least one table, or one of " + ", ".join(Ways))

    @property
    def neighboring(self) -> Neighboring:  # type: ignore[override]
        """Relation that the guarantee is stated for."""
        return Neighboring.REPLACE_ONE if self.public_size else Neighboring.ADD_REMOVE

    def prepare(self, records: Records, rng: np.random.Generator, *, public: Records | None = None) -> Prepared:
        """Release noisy tables of the records, and return rows drawn from them.

        Raises:
            TrainingError: If records are images, or a table or edges name a column that is not there; nothing has been
                released then.
        """
        if not isinstance(records.kind, Table):
            raise TrainingError(f"scheme {self.name!r} counts the rows of a table, and {records.name} holds images")
        try:
            layout = self.layout(records)
            margins = margins_of(self.tables, list(layout.domains), label=records.kind.label)
            released = release(
                layout.codes(records),
                layout.domains,
                margins,
                epsilon=self.epsilon,
                neighboring=self.neighboring,
                mode=self.mode,
                rows=self.rows,
                key=rng.bytes(16),
            )
        except ValueError as error:
            raise TrainingError(f"scheme {self.name!r}: {error}") from error
        # A hash stands between the stream that gave the key and the rows, which may be seen.
        draws = stream(int.from_bytes(rng.bytes(16), "big"), "rows")
        rows = layout.records(released.codes(None, draws), records, draws)
        return Prepared(rows, {"released": released.to_json(), "public_domain": layout.public})

    def layout(self, records: Records) -> Layout:
        """Return how the scheme reads encoded records as columns; only the encoding is looked at.

        Raises:
            ValueError: If edges name a column that is not there, or the records are not rows of a table.
        """
        return layout_of(records, bins=self.bins, edges=dict(self.edges), feature_range=self.feature_range)

    def more_rows(
        self, facts: Mapping[str, Any], like: Records, rng: np.random.Generator, *, rows: int | None = None
    ) -> Records:
        """Draw more rows from what a run released; costs no privacy.

        Args:
            facts: Public facts of the run.
            like: Records of the same encoding; only the encoding is looked at.
            rng: Where the draws come from.
            rows: How many; None: as many as the run drew.

        Examples:
            >>> more = scheme.more_rows(ensemble.traces[0].facts, records, rng, rows=1000)      # doctest: +SKIP
        """
        layout = self.layout(like)
        return layout.records(released_tables(facts).codes(rows, rng), like, rng)

    def released(self, facts: Mapping[str, Any], like: Records, rng: np.random.Generator) -> Records:
        """Return as many rows as the run drew, drawn anew from its tables."""
        return self.more_rows(facts, like, rng)

    def unprotected(self) -> "Marginals":
        """Return the same tables with noise too small to move a count."""
        return replace(self, epsilon=1e6, mode=Mode.REPAIRED)

    def event(self, history: History) -> Any:
        """Return one pure mechanism for each table, or `Unaccounted` with the reason."""
        if not history.facts:
            return self._event_of_plan()
        if not history.facts["public_domain"]:
            return Unaccounted(
                "categories and ranges were read from the records themselves, which no noise covers: declare each "
                "column's public domain"
            )
        released = released_tables(history.facts)
        if isinstance(proved := released.guarantee(), Unaccounted):
            return proved
        return dp_accounting.SelfComposedDpEvent(PureDpEvent(released.table_epsilon), len(released.margins))

    def _event_of_plan(self) -> Any:
        """Price a run that has not happened yet."""
        if self.mode is Mode.REPAIRED:
            return PureDpEvent(self.epsilon)
        if not self.public_size and self.rows is None:
            return Unaccounted(NUMBER_RELEASED)
        if isinstance(self.tables, Ways):
            return Unaccounted("the cost grows with the number of tables, which only a run's facts say")
        each = 2 * self.epsilon if self.public_size else self.epsilon
        return dp_accounting.SelfComposedDpEvent(PureDpEvent(each), len(self.tables))

    def claimed(self, history: History) -> Guarantee:
        """Return what the paper states, epsilon whatever the number of tables; repaired, the epsilon asked for."""
        if self.mode is Mode.LITERAL:
            return Guarantee(self.epsilon, 0.0, Neighboring.ADD_REMOVE, accountant="stated by the paper")
        return Guarantee(self.epsilon, 0.0, self.neighboring, accountant="target of the plan")

    def assumptions(self) -> tuple[str, ...]:
        """Return what the proof takes on trust."""
        rows = "the number of records is public" if self.public_size else "the number of records is not told elsewhere"
        return (
            "categories, bin edges and the choice of tables are public and were fixed before the records were seen",
            rows,
            "noise is integer Laplace, drawn exactly from a key stream (AES-128) with a secret seed",
        )


def released_tables(facts: Mapping[str, Any]) -> Released:
    """Return the noisy tables that a run released.

    Args:
        facts: Public facts of a run under `Marginals`, such as `ensemble.traces[0].facts`.

    Raises:
        ValueError: If there are no tables among them.

    Examples:
        >>> released_tables(ensemble.traces[0].facts).sample(1000)      # doctest: +SKIP
    """
    if "released" not in facts:
        raise ValueError(
            f"the facts hold {sorted(facts)} and no released tables; give those of a run under 'marginals'"
        )
    return Released.from_json(facts["released"])

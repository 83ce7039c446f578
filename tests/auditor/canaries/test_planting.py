"""Planting: data goes out in the form it came in, rows and names tell nothing, the coins are sealed and fair."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow
from scipy import stats
from typer.testing import CliRunner, Result

from auditor.canaries.data_format import read_back
from auditor.canaries.detectability import canaries_needed, one_run_ceiling
from auditor.canaries.planting import plant
from auditor.canaries.request import find_kind
from auditor.canaries.sealed_coins import SealedCoins, data_digest
from auditor.cli.main import app
from auditor.context import RunContext
from auditor.datasets.sources import read_source
from auditor.plan.sections import Source
from auditor.targets.planted_candidates import planted_candidates
from auditor.workspace import Workspace

COUNT = 60
RNG = np.random.default_rng(11)
LABELS = RNG.integers(0, 3, 240)


def auditor(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def patients() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"P{number:04d}" for number in RNG.permutation(240)],
            "age": RNG.integers(18, 90, 240),
            "fever": (36 + RNG.permutation(240) / 10).round(1),  # so that no row is there twice
            "ward": RNG.choice(["north", "south", None], 240, p=[0.5, 0.4, 0.1]),
            "code": RNG.integers(1, 4, 240),
            "smokes": RNG.random(240) < 0.3,
            "sick": np.array(["no", "yes", "unclear"])[LABELS],
        }
    )


def write(form: str, folder: Path) -> Source:
    """Write a small data set in one form."""
    images = RNG.integers(0, 256, (240, 6, 6, 3)).astype(np.uint8)
    if form == "bytes":
        np.savez(folder / "data.npz", x=images, y=LABELS)
        return Source(source="data.npz")
    if form == "grey floats":
        np.savez(folder / "data.npz", x=RNG.uniform(-1, 1, (240, 6, 6)), y=LABELS[:, None])
        return Source(source="data.npz", value_range=(-1, 1))
    if form == "columns":
        x = RNG.normal(size=(240, 7)).astype(np.float32)
        np.savez(folder / "data.npz", x=x, y=LABELS.astype(np.uint8), owner=np.arange(240) // 3)
        return Source(source="data.npz", rescale=False, classes=4)
    if form == "folder":
        for number, (pixels, label) in enumerate(zip(images, LABELS, strict=True)):
            place = folder / "data" / "abc"[label]
            place.mkdir(parents=True, exist_ok=True)
            Pillow.fromarray(pixels).save(place / f"image{number}.png")
        return Source(source="data")
    name = f"data.{form}"
    patients().to_parquet(folder / name) if form == "parquet" else patients().to_csv(folder / name, index=False)
    return Source(source=name, label="sick", exclude=("id",), categories={"code": ()}, ranges={"age": (0, 100)})


FORMS = ["bytes", "grey floats", "columns", "folder", "csv", "csv.gz", "parquet"]


@pytest.mark.parametrize("kind", ["mislabelled", "random_noise", "blank"])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_planted_is_the_data_and_the_canaries_whose_coin_says_so(form: str, kind: str, tmp_path: Path) -> None:
    source = write(form, tmp_path)
    found = plant(
        source,
        kind=find_kind(kind),
        canaries=COUNT,
        out=tmp_path / "out",
        secret=tmp_path / "s",
        folder=tmp_path,
    )
    sealed = SealedCoins.read(tmp_path / "s")
    assert found.data.name == source.source == sealed.data
    original = read_source(source, tmp_path, None)
    # Read as the pipeline of its owner reads it, not as the planter does.
    back = read_source(source.model_copy(update={"source": str(found.data)}), tmp_path, None, like=None)
    if form in ("csv", "csv.gz", "parquet"):
        back = read_back(found.data, sealed.reading, like=original)
    inside = sealed.candidates.take(sealed.included)
    rest = original.row_digests()
    if kind == "mislabelled":
        features = {row.tobytes() for row in sealed.candidates.x}
        rest = [digest for digest, row in zip(rest, original.x, strict=True) if row.tobytes() not in features]
        assert len(rest) == len(original) - COUNT
    assert sorted(back.row_digests()) == sorted(rest + inside.row_digests())
    public = json.loads((tmp_path / "out" / "planted.json").read_text())
    assert data_digest(back) == found.digest == public["data_digest"]
    assert len(set(sealed.candidates.row_digests()) | set(original.row_digests())) == COUNT + len(original)
    given = planted_candidates("s", RunContext(Workspace(tmp_path / "work"), plan_folder=tmp_path), data="out")
    assert given.beside is not None
    assert sorted(given.beside.row_digests()) == sorted(rest)
    assert given.candidates.kind == original.kind
    if form == "columns":
        assert back.owner is not None
        planted = np.isin(np.array(back.row_digests()), np.array(inside.row_digests()))
        assert not set(back.owner[planted]) & set(back.owner[~planted])
        assert len(set(back.owner[planted])) == planted.sum()


@pytest.mark.parametrize("kind", ["random_noise", "mislabelled", "nearest_to_boundary"])
def test_no_canary_equals_another_or_a_record_that_stays(kind: str, tmp_path: Path) -> None:
    # 1,024 rows are possible, and the data has 250 draws of them: chance alone would repeat many.
    rng = np.random.default_rng(2)
    np.savez(tmp_path / "data.npz", x=rng.integers(0, 2, (250, 9)).astype(np.uint8), y=rng.integers(0, 2, 250))
    plant(Source(source="data.npz"), kind=find_kind(kind), canaries=COUNT, out=tmp_path / "o", secret=tmp_path / "s",
          folder=tmp_path)  # fmt: skip
    sealed = SealedCoins.read(tmp_path / "s")
    found = read_source(Source(source="o/data.npz"), tmp_path, None).row_digests()
    canaries = sealed.candidates.row_digests()
    assert len(set(canaries)) == COUNT
    assert [found.count(digest) for digest in canaries] == sealed.included.astype(int).tolist()


def test_cells_of_a_table_stay_as_they_are(tmp_path: Path) -> None:
    source = write("csv", tmp_path)
    plant(source, kind=find_kind("random_noise"), canaries=COUNT, out=tmp_path / "o", secret=tmp_path / "s",
          folder=tmp_path)  # fmt: skip
    before = (tmp_path / "data.csv").read_text().splitlines()
    after = (tmp_path / "o" / "data.csv").read_text().splitlines()
    assert before[0] == after[0]
    assert set(before) <= set(after)
    new = [line.split(",") for line in sorted(set(after) - set(before))]
    assert len(new) == SealedCoins.read(tmp_path / "s").included.sum()
    for _, age, fever, ward, code, smokes, sick in new:
        assert 0 <= int(age) <= 100
        assert len(fever.partition(".")[2]) == 1
        assert ward in ("north", "south", "")
        assert code in ("1", "2", "3")
        assert smokes in ("True", "False")
        assert sick in ("no", "yes", "unclear")


def test_types_of_columns_stay_as_they_are(tmp_path: Path) -> None:
    source = write("parquet", tmp_path)
    plant(source, kind=find_kind("random_noise"), canaries=COUNT, out=tmp_path / "o", secret=tmp_path / "s",
          folder=tmp_path)  # fmt: skip
    before, after = pd.read_parquet(tmp_path / "data.parquet"), pd.read_parquet(tmp_path / "o" / "data.parquet")
    assert before.dtypes.to_dict() == after.dtypes.to_dict()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    plant(
        Source(source="digits"),
        kind=find_kind("random_noise"),
        canaries=1000,
        out=folder / "out",
        secret=folder / "coins.sealed",
    )
    return folder


def test_positions_tell_nothing(planted: Path) -> None:
    sealed = SealedCoins.read(planted / "coins.sealed")
    original = read_source(Source(source="digits"), planted, None)
    back = read_source(Source(source=str(planted / "out" / "digits.npz")), planted, None)
    place = {digest: row for row, digest in enumerate(back.row_digests())}
    canaries = np.array([place[digest] for digest in sealed.candidates.take(sealed.included).row_digests()])
    records = np.array([place[digest] for digest in original.row_digests()])
    # Planted at the end, left in the order of the source, or in that of the sealed file: each gives p below 1e-9.
    assert stats.mannwhitneyu(canaries, records).pvalue > 1e-5
    assert stats.spearmanr(records, np.arange(len(records))).pvalue > 1e-5
    assert stats.spearmanr(canaries, np.arange(len(canaries))).pvalue > 1e-5


def test_coins_are_fair_and_drawn_anew(planted: Path, tmp_path: Path) -> None:
    coins = SealedCoins.read(planted / "coins.sealed").included
    assert stats.binomtest(int(coins.sum()), len(coins)).pvalue > 1e-6
    assert stats.binomtest(int((coins[1:] == coins[:-1]).sum()), len(coins) - 1).pvalue > 1e-6
    again = plant(
        Source(source="digits"),
        kind=find_kind("random_noise"),
        canaries=1000,
        out=tmp_path / "o",
        secret=tmp_path / "s",
    )
    other = SealedCoins.read(tmp_path / "s")
    assert stats.binomtest(int((coins == other.included).sum()), len(coins)).pvalue > 1e-6
    assert again.commitment == other.commitment != SealedCoins.read(planted / "coins.sealed").commitment


def test_the_seal_is_private_and_the_public_side_does_not_open_it(planted: Path) -> None:
    for path in [planted / "coins.sealed", *planted.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    assert {entry.name for entry in (planted / "out").iterdir()} == {"digits.npz", "planted.json"}
    sealed, public = (
        SealedCoins.read(planted / "coins.sealed"),
        json.loads((planted / "out" / "planted.json").read_text()),
    )
    assert public["commitment"] == sealed.commitment
    assert public["canaries"] == 1000
    assert sealed.salt not in json.dumps(public)


def test_files_of_a_folder_have_new_names_and_one_time(tmp_path: Path) -> None:
    source = write("folder", tmp_path)
    plant(source, kind=find_kind("random_noise"), canaries=COUNT, out=tmp_path / "o", secret=tmp_path / "s",
          folder=tmp_path)  # fmt: skip
    files = [file for file in (tmp_path / "o" / "data").rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".png"}
    assert len({len(file.name) for file in files}) == 1
    assert len({file.stat().st_mtime for file in files}) == 1
    assert not {file.name for file in files} & {file.name for file in (tmp_path / "data").rglob("*")}


def test_a_named_table_goes_out_as_csv(data_dir: Path, tmp_path: Path) -> None:
    source = Source(source="adult")
    found = plant(source, kind=find_kind("mislabelled"), canaries=COUNT, out=tmp_path / "o", secret=tmp_path / "s",
                  data_dir=data_dir)  # fmt: skip
    assert found.data.name == "adult.csv"
    first = pd.read_csv(found.data).iloc[0]
    assert 17 <= first["age"] <= 90
    assert first["income"] in ("<=50K", ">50K")


# --- what is refused, and leaves nothing behind


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--canaries", "1"], "at least 2"),
        (["--canaries", "20"], "at least 50"),
        (["--canaries", "100", "--epsilon", "3"], "would do"),
        (["--canaries", "100", "--epsilon", "8"], "no number of them"),
        (["--canaries", "100", "--epsilon", "nan"], "finite"),
        (["--canaries", "100", "--delta", "1"], "delta is 1"),
        (["--canaries", "100", "--attacks", "0"], "attacks is 0"),
        (["--canaries", "1000", "--epsilon", "4.5", "--attacks", "12"], "best of 12 attacks"),
        (["--canaries", "1000", "--epsilon", "4.5", "--attacks", "1"], "at most half"),
        (["--canaries", "6000", "--kind", "blank"], "only 5120"),
        (["--canaries", "100", "--kind", "mislabeled"], "did you mean 'mislabelled'"),
        (["--canaries", "100", "--reading", "nowhere.toml"], "nowhere.toml"),
        (["--canaries", "100", "--reading", "bad.toml"], "'lable'"),
        (["--canaries", "100", "--secret", "out/coins"], "somewhere else"),
        (["--canaries", "100", "--secret", "taken"], "never overwritten"),
        (["--canaries", "100", "--out", "full"], "not empty"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("coins of an earlier planting")
    Path("bad.toml").write_text('lable = "x"')
    Path("full").mkdir()
    Path("full/file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    found = auditor("plant", "digits", "--out", "out", "--secret", "coins", *arguments, "--quiet")
    assert found.exit_code == 2, found.output
    assert words in found.stderr
    assert "Traceback" not in found.output
    assert sorted(tmp_path.rglob("*")) == before
    assert Path("taken").read_text() == "coins of an earlier planting"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("nan", "not finite in record 7"),
        ("regression", "too many for classes"),
        ("inside", "somewhere else"),
    ],
)
def test_data_that_cannot_be_planted_in(
    spoil: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["data.npz", "--secret", "coins"]
    if spoil == "nan":
        x = np.random.default_rng(0).random((100, 5))
        x[7, 2] = np.nan
        np.savez("data.npz", x=x, y=np.arange(100) % 2)
    elif spoil == "regression":
        pd.DataFrame({"a": np.arange(100) % 7, "price": np.linspace(1, 9, 100)}).to_csv("data.csv", index=False)
        arguments = ["data.csv", "--label", "price", "--secret", "coins"]
    else:
        write("folder", tmp_path)
        arguments = ["data", "--secret", "data/coins"]
    found = auditor("plant", *arguments, "--out", "out", "--canaries", "50")
    assert found.exit_code == 2, found.output
    assert words in found.stderr
    assert not Path("out").exists()
    assert not list(tmp_path.rglob("coins"))


def test_a_table_is_named_with_its_label_and_what_else_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("csv", tmp_path)
    Path("reading.toml").write_text('exclude = ["id"]\n[ranges]\nage = [0, 100]\n[categories]\ncode = []\n')
    asked = ["plant", "data.csv", "--label", "sick", "--out", "out", "--secret", "coins", "--canaries", "80", "-q"]
    assert "like an identifier" in auditor(*asked).stderr
    found = auditor(*asked, "--reading", "reading.toml")
    assert found.exit_code == 0, found.output
    assert "left the data because canaries were made of them: 80" in found.stdout
    assert list(pd.read_csv("out/data.csv").columns) == list(pd.read_csv("data.csv").columns)


def test_force_plants_what_cannot_contradict_the_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["plant", "digits", "--out", "out", "--secret", "coins", "--canaries", "100", "--epsilon", "8", "-q"]
    assert auditor(*asked).exit_code == 2
    found = auditor(*asked, "--force")
    assert found.exit_code == 0, found.output
    assert "cannot contradict a claim of 8" in found.output
    assert SealedCoins.read(Path("coins")).commitment in found.stdout


# --- the ceiling


@pytest.mark.parametrize("attacks", [1, 5])
@pytest.mark.parametrize("canaries", [200, 1000])
def test_the_ceiling_is_that_of_all_guesses_right(canaries: int, attacks: int) -> None:
    # Without delta, m right guesses of m reject every epsilon with sigmoid(epsilon)^m <= error.
    error = 0.05 / 2 / (attacks * 7)
    q = error ** (1 / canaries)
    assert one_run_ceiling(canaries, delta=0, attacks=attacks) == pytest.approx(np.log(q / (1 - q)), abs=1e-5)


@pytest.mark.parametrize(("epsilon", "delta"), [(1, 0), (3, 1e-5), (4, 1e-5), (6, 1e-6)])
def test_the_number_that_would_do_does_and_few_less_do_not(epsilon: float, delta: float) -> None:
    enough = canaries_needed(epsilon, delta=delta)
    assert enough is not None
    assert one_run_ceiling(enough, delta=delta) > epsilon
    assert one_run_ceiling(int(0.85 * enough), delta=delta) <= epsilon


def test_no_number_does_where_delta_eats_what_more_canaries_add() -> None:
    assert canaries_needed(8, delta=1e-5) is None

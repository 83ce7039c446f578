"""Tabular data sets known by name, with fixed public schemas.

Ranges and categories come from public descriptions (code books, the sets' documentation), rounded outwards to figures
that no single row decides; a value outside its range is clipped. So the encoding itself says nothing about who is in
the data.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.datasets.csv_files import GAPS, read_cells
from auditor.datasets.data_directory import DataDirectory, DataSet, Part
from auditor.datasets.schema import MISSING, categorical, encode, numeric, table
from auditor.files.memory_budget import default_budget
from auditor.files.npz import read_npz
from defenses.records import Records, Table

if TYPE_CHECKING:
    import pandas as pd

# UCI "Adult" (Becker and Kohavi 1996): categories as its adult.names lists them, "?" where values are missing. Ranges:
# the extract keeps people over 16, and the census bureau top-codes age at 90 and capital gains at 99,999; hours has two
# digits; education-num numbers the 16 education levels; losses are capped here at 5,000.
# fnlwgt is left out: it is the survey's sampling weight, no attribute of the person, and close to a fingerprint of the
# row.
ADULT = table(
    numeric("age", 17, 90),
    categorical(
        "workclass",
        *("Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov", "State-gov", "Without-pay"),
        *("Never-worked", MISSING),
    ),
    categorical(
        "education",
        *("Bachelors", "Some-college", "11th", "HS-grad", "Prof-school", "Assoc-acdm", "Assoc-voc", "9th", "7th-8th"),
        *("12th", "Masters", "1st-4th", "10th", "Doctorate", "5th-6th", "Preschool"),
    ),
    numeric("education-num", 1, 16),
    categorical(
        "marital-status",
        *("Married-civ-spouse", "Divorced", "Never-married", "Separated", "Widowed", "Married-spouse-absent"),
        "Married-AF-spouse",
    ),
    categorical(
        "occupation",
        *("Tech-support", "Craft-repair", "Other-service", "Sales", "Exec-managerial", "Prof-specialty"),
        *("Handlers-cleaners", "Machine-op-inspct", "Adm-clerical", "Farming-fishing", "Transport-moving"),
        *("Priv-house-serv", "Protective-serv", "Armed-Forces", MISSING),
    ),
    categorical("relationship", "Wife", "Own-child", "Husband", "Not-in-family", "Other-relative", "Unmarried"),
    categorical("race", "White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black"),
    categorical("sex", "Female", "Male"),
    numeric("capital-gain", 0, 99_999),
    numeric("capital-loss", 0, 5_000),
    numeric("hours-per-week", 1, 99),
    categorical(
        "native-country",
        *("United-States", "Cambodia", "England", "Puerto-Rico", "Canada", "Germany", "Outlying-US(Guam-USVI-etc)"),
        *("India", "Japan", "Greece", "South", "China", "Cuba", "Iran", "Honduras", "Philippines", "Italy", "Poland"),
        *("Jamaica", "Vietnam", "Mexico", "Portugal", "Ireland", "France", "Dominican-Republic", "Laos", "Ecuador"),
        *("Taiwan", "Haiti", "Columbia", "Hungary", "Guatemala", "Nicaragua", "Scotland", "Thailand", "Yugoslavia"),
        *("El-Salvador", "Trinadad&Tobago", "Peru", "Hong", "Holand-Netherlands", MISSING),
    ),
    label="income",
    classes=("<=50K", ">50K"),
)
_ADULT_COLUMNS = [*(column.name for column in ADULT.columns), ADULT.label]
_ADULT_COLUMNS.insert(2, "fnlwgt")


def _codes(letter_number: str, *suffixes: str) -> tuple[str, ...]:
    return tuple(f"{letter_number}{suffix}" for suffix in suffixes)


# UCI Statlog "German credit" (Hofmann 1994): codes as its german.doc lists them (A47 and A95 are listed, though
# unused). The document gives no ranges for the numbers: round figures that are common sense for consumer credit.
GERMAN = table(
    categorical("checking-status", *_codes("A1", *"1234")),
    numeric("duration-months", 0, 80),
    categorical("credit-history", *_codes("A3", *"01234")),
    categorical("purpose", *_codes("A4", *"0123456789", "10")),
    numeric("credit-amount", 0, 20_000),
    categorical("savings", *_codes("A6", *"12345")),
    categorical("employment-since", *_codes("A7", *"12345")),
    numeric("instalment-rate", 1, 4),
    categorical("personal-status-sex", *_codes("A9", *"12345")),
    categorical("other-debtors", *_codes("A10", *"123")),
    numeric("residence-since", 1, 4),
    categorical("property", *_codes("A12", *"1234")),
    numeric("age", 18, 80),
    categorical("other-instalments", *_codes("A14", *"123")),
    categorical("housing", *_codes("A15", *"123")),
    numeric("existing-credits", 1, 4),
    categorical("job", *_codes("A17", *"1234")),
    numeric("people-liable", 1, 2),
    categorical("telephone", *_codes("A19", *"12")),
    categorical("foreign-worker", *_codes("A20", *"12")),
    label="credit",
    classes=("good", "bad"),
)

# UCI "Heart disease" (Janosi, Steinbrunn, Pfisterer, Detrano 1988), processed Cleveland part: codes as
# heart-disease.names lists them; ranges are round physiological limits. The label is presence (1-4) against absence
# (0), as is usual with it.
HEART = table(
    numeric("age", 20, 90),
    categorical("sex", "0", "1"),
    categorical("cp", "1", "2", "3", "4"),
    numeric("trestbps", 80, 220),
    numeric("chol", 100, 600),
    categorical("fbs", "0", "1"),
    categorical("restecg", "0", "1", "2"),
    numeric("thalach", 60, 220),
    categorical("exang", "0", "1"),
    numeric("oldpeak", 0, 7),
    categorical("slope", "1", "2", "3"),
    categorical("ca", "0", "1", "2", "3", MISSING),
    categorical("thal", "3", "6", "7", MISSING),
    label="num",
    classes=("absent", "present"),
)

# ProPublica "COMPAS recidivism", two years: what is known of a person when the score is made. Left out are the scores
# themselves, what comes after them (is_recid, is_violent_recid), the age group (age says it), the 437 free texts of the
# charge, and days_b_screening_arrest (a filter, missing in 307 rows). All 7,214 rows are kept. Ranges are round
# figures.
COMPAS = table(
    categorical("sex", "Female", "Male"),
    numeric("age", 18, 100),
    categorical("race", "African-American", "Asian", "Caucasian", "Hispanic", "Native American", "Other"),
    numeric("juv_fel_count", 0, 20),
    numeric("juv_misd_count", 0, 20),
    numeric("juv_other_count", 0, 20),
    numeric("priors_count", 0, 40),
    categorical("c_charge_degree", "F", "M"),
    label="two_year_recid",
    classes=("0", "1"),
)


def _rows(path: Path, **layout: Any) -> "pd.DataFrame":
    frame = read_cells(path, max_memory=default_budget(), **layout)
    return frame.mask(frame.isin(GAPS))


def _adult(shelf: DataDirectory, part: Part) -> Records:
    import pandas as pd

    parts = {"train": ["data"], "test": ["test"], "all": ["data", "test"]}[part]
    files = shelf.obtain(*(f"adult/adult.{one}" for one in parts), fetch=None, name="Adult")
    # adult.test begins with a comment line, and its labels end in a full stop.
    frame = pd.concat(
        _rows(file, names=_ADULT_COLUMNS, skip=int(one == "test")) for one, file in zip(parts, files, strict=True)
    )
    frame["income"] = frame["income"].str.rstrip(".")
    return encode(frame, ADULT, name="Adult")


def _german(shelf: DataDirectory, part: Part) -> Records:
    (file,) = shelf.obtain("tabular_small/german.data", fetch=None, name="German credit")
    frame = _rows(file, names=[*(column.name for column in GERMAN.columns), GERMAN.label], delimiter=" ")
    frame[GERMAN.label] = frame[GERMAN.label].map({"1": "good", "2": "bad"})
    return encode(frame, GERMAN, name="German credit")


def _heart(shelf: DataDirectory, part: Part) -> Records:
    (file,) = shelf.obtain("tabular_small/processed.cleveland.data", fetch=None, name="Cleveland heart disease")
    frame = _rows(file, names=[*(column.name for column in HEART.columns), HEART.label])
    for column in (column.name for column in HEART.columns if column.categories):
        frame[column] = frame[column].str.removesuffix(".0")
    frame[HEART.label] = np.where(frame[HEART.label] == "0", "absent", "present")
    return encode(frame, HEART, name="Cleveland heart disease")


def _compas(shelf: DataDirectory, part: Part) -> Records:
    (file,) = shelf.obtain("tabular_small/compas_two_years.csv", fetch=None, name="COMPAS")
    return encode(_rows(file), COMPAS, name="COMPAS")


def _location30(shelf: DataDirectory, part: Part) -> Records:
    (file,) = shelf.obtain("location30/location30.npz", fetch=None, name="Location-30")
    arrays = read_npz(file, "X_packed", "y", "n_features")
    width = int(arrays["n_features"])
    x = np.unpackbits(arrays["X_packed"], axis=1, count=width).astype(np.float32, order="C")
    schema = table(
        *(numeric(f"place_{index + 1:03d}", 0, 1) for index in range(width)),
        label="cluster",
        classes=[str(index + 1) for index in range(30)],
    )
    return Records(x, arrays["y"].astype(np.int64), 30, schema, name="Location-30")


def _breast_cancer(shelf: DataDirectory, part: Part) -> Records:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer(as_frame=True)
    frame = bunch.data
    # No public ranges are documented: smallest and largest value are read from the records, and the schema says so.
    columns = (numeric(name, frame[name].min(), frame[name].max()) for name in frame)
    schema: Table = table(*columns, label="diagnosis", classes=tuple(bunch.target_names), public_domain=False)
    named = frame.assign(diagnosis=np.asarray(bunch.target_names, dtype=object)[bunch.target])
    return encode(named, schema, name="breast cancer (Wisconsin)")


TABLE_SETS: dict[str, DataSet] = {
    "breast_cancer": DataSet("569 tumours, 30 measurements, 2 classes (comes with scikit-learn)", _breast_cancer),
    "adult": DataSet("32,561 + 16,281 people of the 1994 census, 13 attributes, income over 50K", _adult, parts=True),
    "location30": DataSet("5,010 people, 446 visited places, 30 classes", _location30),
    "german": DataSet("1,000 credit applications, 20 attributes, good or bad", _german),
    "heart": DataSet("303 patients in Cleveland, 13 attributes, heart disease or none", _heart),
    "compas": DataSet("7,214 defendants, 8 attributes, arrested again within two years", _compas),
}
"""Tabular data sets by name; add one by adding an entry with its public schema."""

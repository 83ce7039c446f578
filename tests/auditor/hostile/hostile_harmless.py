"""What the campaign's cases are without anything hostile: each is read, or the refusals would show nothing."""

import gzip
from pathlib import Path

import numpy as np
import test_hostile_arrays as of_arrays
import test_hostile_images as of_images
import test_hostile_reports as of_reports
import test_hostile_tables as of_tables
from hostile_case import AUDIT, Case, Content, Scene
from hostile_checkpoints import PLAN as CHECKPOINT
from hostile_folders import PLAN
from hostile_records import SCORES, labelled, reading
from hostile_words import GATE, valid_report


def harmless(scene: Scene) -> list[Case]:
    """Return a case of every kind that ends as it should; the first leaves the work folder that others damage."""
    rng = np.random.default_rng(0)
    shown = [of_images.encoded("PNG"), of_images.encoded("BMP")]
    pets: dict[str, Content] = {
        f"pets/{name}/{index}.png": shown[index % 2] if index < 2 else _picture(rng)
        for name in ("cat", "dog")
        for index in range(12)
    }
    report: dict[str, Content] = {"report.json": valid_report(), "policy.toml": of_reports.POLICY}
    found = {
        "array": (AUDIT, {"plan.toml": reading("a.npz"), "a.npz": of_arrays.npz(**_images(rng))}),
        "score file": (AUDIT, {"plan.toml": SCORES.format("s.npz"), "s.npz": of_arrays.npz(**of_arrays.scores())}),
        "table of scores": (AUDIT, {"plan.toml": SCORES.format("s.csv"), "s.csv": of_arrays.table_of_scores()}),
        "csv": (AUDIT, {**labelled("t.csv"), "t.csv": of_tables.VALID}),
        "csv.gz": (AUDIT, {**labelled("t.csv.gz"), "t.csv.gz": gzip.compress(of_tables.VALID.encode())}),
        "parquet": (AUDIT, {**labelled("t.parquet"), "t.parquet": of_tables._parquet()}),
        "images": (AUDIT, {"plan.toml": reading("pets/"), **pets}),
        "checkpoint": (AUDIT, {"plan.toml": CHECKPOINT, "model.pt": (scene.shared / "model.safetensors").read_bytes()}),
        "gate": ((*GATE, "--baseline", "report.json"), report),
        "render": (("render", "report.json", "--out", "out"), report),
    }
    return [_well(scene), *(Case(name, "harmless", files, arguments) for name, (arguments, files) in found.items())]


def _well(scene: Scene) -> Case:
    state = {"XDG_STATE_HOME": str(scene.shared / "state")}
    arguments = (*AUDIT, "--work-dir", str(scene.shared / "work"))
    return Case("work folder", "harmless", {"plan.toml": PLAN}, arguments, environment=state)


def _images(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": rng.random((40, 1, 4, 4)), "y": np.arange(40) % 2}


def _picture(rng: np.random.Generator) -> Content:
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)

    def make(path: Path) -> None:
        of_images.Pillow.fromarray(pixels).save(path, "PNG")

    return make

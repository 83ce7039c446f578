"""Images that somebody else made: no other program is started, and nothing is decoded that is not expected."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hostile import mutations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from auditor.canaries.canary_type import Drawn
from auditor.canaries.formats.image_folder import ImageFolder
from auditor.datasets import load
from auditor.datasets.image_files import FORMATS, LARGEST_FILE
from auditor.datasets.image_folders import read_folder
from auditor.datasets.reading import Reading
from defenses.errors import AuditError, DataError

MIB = 2**20
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
PIXELS = np.random.default_rng(5).integers(0, 256, (8, 8, 3), dtype=np.uint8)
FUZZ = settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def encoded(kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    Pillow.fromarray(PIXELS).save(target, kind, **options)
    return target.getvalue()


def png(width: int, height: int, *, mode: int = 2) -> bytes:
    """Return a PNG whose header has this size, and that has hardly any pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, body) for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "0.png").write_bytes(encoded("PNG"))
    return tmp_path / "pets"


def refused(folder: Path, *, max_memory: int = 2**30) -> str:
    """Return the sentence with which a folder is refused, after a look at its form."""
    with pytest.raises(DataError) as caught:
        read_folder(folder, Reading(max_memory=max_memory))
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert len(sentence) < 600
    assert ";" in sentence, "no remedy"
    return sentence


@pytest.mark.parametrize("name", ["1.png", "1.jpg", "1.eps"])
def test_no_other_program_is_started(name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin" / "gs"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    (folder / "cat" / name).write_bytes(EPS)
    assert "is not a readable image" in (sentence := refused(folder)) or "a format that is not read" in sentence
    # Pillow looks for Ghostscript once and remembers, so the folder is read by a new process too.
    code = "import sys; from auditor.datasets import load; load(sys.argv[1] + '/')"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120)
    assert "DataError" in done.stderr
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_content_decides_on_the_format(kind: str, folder: Path) -> None:
    for name in ("cat", "dog"):
        (folder / name / "0.png").write_bytes(encoded(kind))
    assert load(folder).shape == (3, 8, 8)


def test_other_formats_are_refused_and_not_left_out(folder: Path) -> None:
    for kind in ("ICO", "GIF"):
        path = folder / "dog" / f"1.{kind.lower()}"
        path.write_bytes(encoded(kind))
        assert f"{path.name} has the ending of a format that is not read; PNG, JPEG" in refused(folder)
        path.rename(folder / "dog" / "1.png")
        assert "1.png is not a readable image" in refused(folder)
        (folder / "dog" / "1.png").unlink()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_an_animation_is_refused(kind: str, folder: Path) -> None:
    frames = [Pillow.fromarray(255 - PIXELS)]
    (folder / "dog" / "1.png").write_bytes(encoded(kind, save_all=True, append_images=frames))
    assert "1.png holds several pictures" in refused(folder)


def test_the_first_picture_of_a_jpeg_with_a_preview_is_read(folder: Path) -> None:
    preview = [Pillow.fromarray(PIXELS[::2, ::2])]
    (folder / "dog" / "1.jpg").write_bytes(encoded("MPO", save_all=True, append_images=preview))
    np.testing.assert_array_equal(
        load(folder).x[2] * 255, np.asarray(Pillow.open(io.BytesIO(encoded("JPEG")))).transpose(2, 0, 1)
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_what_is_no_regular_file_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "cat" / "1.png")
    assert "1.png is a FIFO" in refused(folder)
    (folder / "cat" / "1.png").unlink()
    (folder / "cat" / "1.png").symlink_to("/dev/zero")
    assert "1.png is a device" in refused(folder)


def test_links_to_images_are_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "dog" / "0.png").rename(tmp_path / "real.png")
    (folder / "dog" / "0.png").symlink_to(tmp_path / "real.png")
    (folder / "emu").symlink_to(folder / "cat")
    assert len(load(folder)) == 3
    (folder / "dog" / "1.png").symlink_to(tmp_path / "gone.png")
    assert "1.png cannot be read" in refused(folder)


def test_a_size_in_the_header_is_compared_before_anything_is_decoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "dog" / "1.png").write_bytes(png(9000, 9000))
    decoded = []
    load_pixels = Pillow.Image.load
    monkeypatch.setattr(Pillow.Image, "load", lambda image: decoded.append(image.size) or load_pixels(image))
    assert "1.png is 9000 x 9000 colour, but 0.png is 8 x 8 colour" in refused(folder)
    assert (9000, 9000) not in decoded


def test_images_that_do_not_fit_into_the_budget_are_refused_by_the_first_header(folder: Path) -> None:
    for name in ("cat", "dog"):
        (folder / name / "0.png").write_bytes(png(13_000, 13_000))
    assert "would need 4.7 GiB of memory, and the budget is 1.0 GiB" in refused(folder)


def test_a_header_beyond_what_any_image_has_is_refused(folder: Path) -> None:
    (folder / "dog" / "1.png").write_bytes(png(2**31 - 1, 2**31 - 1))
    assert "DecompressionBombError" in refused(folder)


def test_the_list_of_files_is_bounded(folder: Path) -> None:
    assert "the list of files in" in refused(folder, max_memory=1500)


def test_a_file_without_end_is_refused(folder: Path) -> None:
    with (folder / "dog" / "1.png").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    assert "at most 268,435,456 are read here" in refused(folder)


def test_names_of_files_do_not_reach_the_terminal_as_they_are(folder: Path) -> None:
    (folder / "dog" / "a\x1b[2J\nb.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert r"a\x1b[2J b.png is not" in refused(folder)
    (folder / "e\x1b[2J\nmu").mkdir()
    with pytest.raises(DataError) as caught:
        read_folder(folder, Reading(classes=("cat", "dog")))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        encoded("PNG")[:-30],
        encoded("JPEG")[:200],
        png(8, 8, mode=7),
        b"II*\0" + b"\xff" * 60,
        b"P6 8 8 70000\n" + b"\0" * 99,
    ],
)
def test_damaged_images_are_refused_in_a_sentence(content: bytes, folder: Path) -> None:
    (folder / "dog" / "1.png").write_bytes(content)
    assert "1.png" in refused(folder)


def test_a_file_that_became_a_fifo_is_not_copied(folder: Path, tmp_path: Path) -> None:
    records = load(folder)
    form = ImageFolder(folder, records)
    (folder / "dog" / "0.png").unlink()
    os.mkfifo(folder / "dog" / "0.png")
    none = Drawn(records.x[:0], records.y[:0])
    with pytest.raises(DataError, match=r"0\.png is a FIFO"):
        form.write(tmp_path / "out", np.arange(2), none, np.arange(2))


# --- anything else


def _resealed(chunks: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Give damaged chunks of a PNG their right checksums, so that the damage is met by the decoder."""

    def seal(body: bytes) -> bytes:
        kind, rest = body[4:8], body[8:]
        return b"\x89PNG\r\n\x1a\n" + _chunk(kind, rest[:13]) + _chunk(b"IDAT", rest[25:-16]) + _chunk(b"IEND", b"")

    return chunks.map(seal)


KINDS = {
    "png": st.one_of(mutations(encoded("PNG")), _resealed(mutations(encoded("PNG")[8:]))),
    **{kind.lower(): mutations(encoded(kind)) for kind in ("JPEG", "BMP", "WEBP", "TIFF", "PPM")},
}


def survives(folder: Path, content: bytes) -> None:
    (folder / "dog" / "1.png").write_bytes(content)
    try:
        records = read_folder(folder, Reading(max_memory=256 * MIB))
    except AuditError as error:
        sentence = str(error)
    else:
        assert len(records) == 3
        return
    assert sentence.isprintable()
    assert len(sentence) < 600


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_damaged_image_is_read_or_refused(kind: str, folder: Path) -> None:
    @FUZZ
    @given(KINDS[kind])
    def run(content: bytes) -> None:
        survives(folder, content)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_very_many_damaged_images_are_read_or_refused(kind: str, folder: Path) -> None:
    @settings(FUZZ, max_examples=3000)
    @given(KINDS[kind])
    def run(content: bytes) -> None:
        survives(folder, content)

    run()

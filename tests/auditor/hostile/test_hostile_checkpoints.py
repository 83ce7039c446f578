"""Checkpoints made to hang, to fill the memory or to crash: each is refused in one sentence, and nothing is run."""

import hashlib
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hostile import fuzz, modest, refused

from auditor.targets.checkpoint_file import Checkpoint, fit_weights, read_checkpoint
from defenses.errors import CheckpointError

MEBIBYTE = 2**20
ZIP = {
    "archive/version": b"3\n",
    "archive/byteorder": b"little",
}


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


def saved(content: object, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def archive(program: bytes, **storages: bytes) -> bytes:
    """Return an archive as torch.save writes it around a pickle of one's own."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for name, content in {"archive/data.pkl": program, **ZIP}.items():
            target.writestr(name, content)
        for key, content in storages.items():
            target.writestr(f"archive/data/{key[1:]}", content)
    return file.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(size: str, stride: str, *, count: int, kind: str = "FloatStorage", key: str = "0") -> bytes:
    """Return the operations that describe a tensor; sizes are operations too."""
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + integer(count) + b"tQ"
    arguments = storage + b"K\x00" + size.encode("latin-1") + stride.encode("latin-1") + b"\x89N"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def integer(value: int) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1]


def sizes(*values: int) -> str:
    return (b"(" + b"".join(map(integer, values)) + b"t").decode("latin-1")


def named(name: str, value: bytes) -> bytes:
    return b"\x80\x02}" + text(name) + value + b"s."


def rewritten(valid: bytes, *, method: int = zipfile.ZIP_STORED, twice: str = "", more: int = 0) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(valid)) as source, zipfile.ZipFile(file, "w", method) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
            if name.endswith(twice or "\n"):
                with pytest.warns(UserWarning, match="Duplicate name"):
                    target.writestr(name, source.read(name))
        for index in range(more):
            target.writestr(f"archive/data/{1000 + index}", b"")
    return file.getvalue()


@pytest.fixture
def put(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "model.pt"
        path.write_bytes(content)
        return path

    return write


Put = Callable[[bytes], Path]


# --- pickles that take for ever


def test_weights_inside_themselves_are_refused(put: Put) -> None:
    content: dict[str, object] = {}
    content["state_dict"] = content
    with refused(CheckpointError, "under more than 8 keys inside each other", "save only the weights"):
        read_checkpoint(put(saved(content)))


def test_a_key_that_takes_for_ever_to_hash_is_not_hashed(put: Put) -> None:
    # Each tuple holds the one before twice, so that hashing or printing the last one takes 2**60 steps.
    tuples = b")" + b"".join(b"q\x00h\x00\x86" for _ in range(60))
    program = b"\x80\x02}" + tuples + b"K\x01s" + text("w") + tensor(sizes(2), sizes(1), count=2) + b"s."
    checkpoint = read_checkpoint(put(archive(program, _0=bytes(8))))
    assert checkpoint.notes == ("left out a tuple, which are not tensors",)


def test_a_long_pickle_is_not_read(put: Put) -> None:
    with refused(CheckpointError, "describes its tensors in 8,388,", "save only the weights"), modest():
        read_checkpoint(put(archive(b"\x80\x02" + b"}" * (8 * MEBIBYTE))))


def test_a_pickle_larger_than_the_budget_once_read_is_refused(put: Put) -> None:
    with refused(CheckpointError, r"would need 0\.4 GiB", "raise --max-memory"):
        read_checkpoint(put(archive(b"\x80\x02" + b"}" * (4 * MEBIBYTE))), max_memory=100 * MEBIBYTE)


@pytest.mark.parametrize(
    "call",
    [
        b"ctorch\nTensor\n" + integer(10**5) + integer(10**6) + b"\x86R",
        b"c__builtin__\nbytearray\n" + integer(10**12) + b"\x85R",
        b"ctorch.storage\nUntypedStorage\n" + integer(10**12) + b"\x85R",
    ],
)
def test_nothing_of_a_stated_size_is_made(call: bytes, put: Put) -> None:
    with modest():
        checkpoint = read_checkpoint(
            put(archive(named("big", call + b"s" + text("w") + tensor(sizes(2), sizes(1), count=2)), _0=bytes(8)))
        )
    assert checkpoint.notes == ("left out big, which are not tensors",)
    assert list(checkpoint.weights) == ["w"]


@pytest.mark.parametrize("name", ["os\nsystem", "torch.nn.modules.linear\nLinear", "numpy\nfromfile", "a\x1b[2J\nb"])
def test_what_is_not_of_a_checkpoint_is_named_and_not_imported(name: str, put: Put) -> None:
    with refused(CheckpointError, "reading it would call", "save only the weights"):
        read_checkpoint(put(archive(b"\x80\x02c" + name.encode() + b"\n(tR.")))


# --- sizes that are not true


def test_an_expanded_tensor_is_refused(put: Put) -> None:
    huge = torch.zeros(1).expand(2**32)
    with refused(CheckpointError, r"shape \(4294967296,\) on a storage of 1 numbers", r"\.contiguous"), modest():
        read_checkpoint(put(saved({"w": huge})))


def test_overlapping_rows_are_refused(put: Put) -> None:
    rows = torch.zeros(2000).as_strided((1000, 1000), (1, 1))
    with refused(CheckpointError, "on a storage of 2,000 numbers", r"\.contiguous"):
        read_checkpoint(put(saved({"w": rows})))


def test_a_tensor_beyond_its_storage_is_refused(put: Put) -> None:
    for size, stride in ((sizes(2), sizes(2)), (sizes(4), sizes(1)), (sizes(2**40, 2**40), sizes(1, 1))):
        with refused(CheckpointError, "on a storage of 2 numbers", "save it again"):
            read_checkpoint(put(archive(named("w", tensor(size, stride, count=2)), _0=bytes(8))))


def test_tied_weights_and_views_are_read_once(put: Put) -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    checkpoint = read_checkpoint(put(saved({"a": weight, "b": weight, "c": weight.T, "d": weight[1:, 1]})))
    for name, expected in {"a": weight, "b": weight, "c": weight.T, "d": weight[1:, 1]}.items():
        assert torch.equal(checkpoint.weights[name], expected)
    assert checkpoint.weights["a"].data_ptr() == checkpoint.weights["b"].data_ptr()


def test_many_names_of_one_storage_cost_what_they_become(put: Put) -> None:
    weight = torch.zeros(MEBIBYTE, dtype=torch.bfloat16)
    with refused(CheckpointError, r"would need 3\.9 GiB", "raise --max-memory"), modest():
        read_checkpoint(put(saved({str(index): weight for index in range(1000)})), max_memory=512 * MEBIBYTE)


@pytest.mark.parametrize("count", [1, 3, 2**40])
def test_a_storage_of_another_size_is_refused(count: int, put: Put) -> None:
    with refused(CheckpointError, "data/0 has 8 bytes|would need 4096", "save it again|--max-memory"), modest():
        read_checkpoint(put(archive(named("w", tensor(sizes(1), sizes(1), count=count)), _0=bytes(8))))


@pytest.mark.parametrize("legacy", [True, False])
def test_a_changed_bit_of_a_weight_is_found_where_there_is_a_checksum(legacy: bool, put: Put) -> None:
    valid = bytearray(saved({"w": torch.full((64,), 1.5)}, _use_new_zipfile_serialization=not legacy))
    valid[valid.rindex(struct.pack("<f", 1.5))] ^= 1
    if legacy:
        assert read_checkpoint(put(bytes(valid))).weights["w"][-1] != 1.5
        return
    with refused(CheckpointError, "Bad CRC", "save it again"):
        read_checkpoint(put(bytes(valid)))


def test_a_storage_of_an_old_file_that_lies_is_refused(put: Put) -> None:
    valid = saved({"w": torch.ones(5)}, _use_new_zipfile_serialization=False)
    count, numbers = struct.pack("<q", 5), torch.ones(5).numpy().tobytes()
    assert valid.endswith(count + numbers)
    for lie in (4, 6, 2**60, -1):
        with refused(CheckpointError, "states two sizes", "save it again"), modest():
            read_checkpoint(put(valid.replace(count + numbers, struct.pack("<q", lie) + numbers)))


def test_an_unread_storage_costs_nothing(tmp_path: Path) -> None:
    # Only weights are read, not the optimiser's half of the file.
    torch.save({"model": {"w": torch.ones(4)}, "optimizer": {"m": torch.zeros(64 * MEBIBYTE)}}, tmp_path / "a.pt")
    with modest(100):
        assert list(read_checkpoint(tmp_path / "a.pt").weights) == ["w"]


# --- archives


def test_a_deflated_archive_is_refused(put: Put) -> None:
    bomb = rewritten(saved({"w": torch.zeros(64 * MEBIBYTE)}), method=zipfile.ZIP_DEFLATED)
    assert len(bomb) < MEBIBYTE
    with refused(CheckpointError, "compressed members", "save only the weights"), modest():
        read_checkpoint(put(bomb))


@pytest.mark.parametrize("which", ["data/0", "data.pkl"])
def test_two_members_of_one_name_are_refused(which: str, put: Put) -> None:
    with refused(CheckpointError, "has two members 'archive/", "write the file again"):
        read_checkpoint(put(rewritten(saved(network().state_dict()), twice=which)))


def test_members_that_share_their_bytes_are_refused(put: Put) -> None:
    valid = saved({"a": torch.full((3,), 7.0), "b": torch.full((3,), 7.0)})
    start = valid.index(b"PK\x01\x02")
    first, second = (valid.index(name, start) for name in (b"archive/data/0", b"archive/data/1"))
    damaged = bytearray(valid)
    damaged[second - 4 : second] = damaged[first - 4 : first]  # where the member begins
    with refused(CheckpointError, "members that overlap", "write the file again"):
        read_checkpoint(put(bytes(damaged)))


def test_an_archive_of_many_members_is_refused(put: Put) -> None:
    with refused(CheckpointError, "members, and at most 50,000", "fewer"):
        read_checkpoint(put(rewritten(saved({"w": torch.ones(2)}), more=50_000)))


def test_a_directory_of_many_bytes_is_not_read(put: Put) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for index in range(150):
            target.writestr(f"{index:060000d}", b"")
    with refused(CheckpointError, "directory has more than", "save it again"):
        read_checkpoint(put(file.getvalue()))


# --- safetensors


def safe(header: bytes, numbers: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + numbers


@pytest.mark.parametrize(
    "entry",
    [
        b'{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
        b'{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}',
        b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b'{"w":{"dtype":"F32","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0]}}',
        b'{"w":' + b"[" * 100_000,
        b'{"w":{"dtype":"OBJECT","shape":[2],"data_offsets":[0,8]}}',
    ],
)
def test_a_safetensors_header_that_lies_is_refused(entry: bytes, put: Put) -> None:
    with refused(CheckpointError, "cannot be read", "save it again"), modest():
        read_checkpoint(put(safe(entry, bytes(8))))


def test_a_long_safetensors_header_is_not_parsed(put: Put) -> None:
    with refused(CheckpointError, "header of 17,", "save fewer tensors"), modest():
        read_checkpoint(put(safe(b"{" + b" " * (17 * MEBIBYTE))))


# --- files that are no files, and files that change


@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "a device"])
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with refused(CheckpointError, f"is {kind}", "give a regular file"):
        read_checkpoint(path)


def test_a_file_of_holes_is_measured_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "model.pt").open("wb") as file:
        file.truncate(2**40)
    with refused(CheckpointError, r"would need 1024\.0 GiB", "raise --max-memory"):
        read_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_the_file_that_is_hashed_is_the_one_that_is_loaded(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("one", 1.0), ("two", 2.0)):
        weights = {"w": torch.full((3,), value)}
        content = safetensors.torch.save(weights)
        if form != "safetensors":
            content = saved(weights, _use_new_zipfile_serialization=form == "zip")
        (tmp_path / name).write_bytes(content)
    path = tmp_path / "model.pt"
    path.symlink_to("one")
    measure = hashlib.file_digest

    def swap(file: IO[bytes], name: str) -> object:
        found = measure(file, name)  # type: ignore[arg-type]
        path.unlink()
        path.symlink_to("two")
        return found

    monkeypatch.setattr(hashlib, "file_digest", swap)
    checkpoint = read_checkpoint(path)
    assert checkpoint.digest == hashlib.sha256((tmp_path / "one").read_bytes()).hexdigest()
    assert checkpoint.weights["w"].tolist() == [1.0, 1.0, 1.0]


# --- names and numbers


def test_names_of_a_file_cannot_move_the_cursor_or_fill_the_screen(put: Put) -> None:
    names = ["\x1b[2J\n" * 50_000, "\ud800", "", *(str(index) for index in range(5000))]
    for content in (dict.fromkeys(names, 1), {name: torch.ones(1).to_sparse() for name in names}):
        program = saved(content)
        with refused(CheckpointError, "holds no weights|quantised, sparse or empty", "save"):
            read_checkpoint(put(program))


def test_weights_that_overflow_the_architecture_are_named() -> None:
    weights = {name: value.double() for name, value in network().state_dict().items()}
    weights["1.num_batches_tracked"] = torch.tensor(0)
    weights["0.bias"][1] = 1e200
    with refused(CheckpointError, r"NaN or infinite weights in 0\.bias", "audit an earlier"):
        fit_weights(network(), Checkpoint(weights, digest=""))


# --- everything else


VALID = {
    "safetensors": lambda: safetensors.torch.save(network().state_dict()),
    "zip": lambda: saved({"model": network().state_dict(), "epoch": 3}),
    "legacy": lambda: saved(network().state_dict(), _use_new_zipfile_serialization=False),
}


def read_and_fit(path: Path) -> None:
    with np.errstate(all="raise"):
        fit_weights(network(), read_checkpoint(path, max_memory=256 * MEBIBYTE))


@pytest.mark.parametrize("form", VALID)
def test_a_damaged_checkpoint_is_read_or_refused(form: str, tmp_path: Path) -> None:
    with modest(512):
        fuzz(VALID[form](), tmp_path / "model.pt", read_and_fit, cases=300)


@pytest.mark.slow
@pytest.mark.parametrize("form", VALID)
def test_many_damaged_checkpoints_are_read_or_refused(form: str, tmp_path: Path) -> None:
    with modest(512):
        fuzz(VALID[form](), tmp_path / "model.pt", read_and_fit, cases=3000)

"""Hostile checkpoints: programs in every container, sizes that are not true, and what is no file at all."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from hostile_case import MODEL, NO_FILES, Case, Content, Scene, numbered, sparse
from hostile_programs import calls, legacy, programs
from safetensors.torch import save
from test_hostile_checkpoints import (
    archive,
    integer,
    named,
    rewritten,
    safe,
    saved,
    sizes,
    tensor,
    test_a_safetensors_header_that_lies_is_refused,
    test_nothing_of_a_stated_size_is_made,
    test_what_is_not_of_a_checkpoint_is_named_and_not_imported,
    text,
)
from test_hostile_checkpoints import network as other_network

from hostile_case import parameters  # isort: skip

PLAN = (
    'title = "c"\n[checkpoint]\npath = "model.pt"\n[checkpoint.members]\nsource = "../shared/in.npz"\nclasses = 2\n'
    '[checkpoint.nonmembers]\nsource = "../shared/out.npz"\nclasses = 2\n'
) + MODEL
MIB = 2**20


def checkpoints(scene: Scene) -> list[Case]:
    """Return all hostile checkpoints."""
    found = {**_programs(scene), **_archives(scene), **_safetensors(), **_sizes(), **_cut(), **NO_FILES}
    return numbered("checkpoint", found.items(), {"plan.toml": PLAN}, "model.pt")


def _programs(scene: Scene) -> dict[str, Content]:
    found: dict[str, Content] = {}
    for index, (name, program) in enumerate(programs(scene).items()):
        found[f"pickle: {name}"] = program
        found[f"archive: {name}"] = archive(program)
        if index % 3 == 0:
            found[f"old torch file: {name}"] = legacy(program)
    call = calls(scene)["posix.system"]
    plain = programs(scene)["os.system in protocol 4"]
    packed = {"zlib": zlib.compress, "gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    found |= {f"pickle packed by {name}": pack(plain) for name, pack in packed.items()}
    for name in ("zlib", "gzip", "bz2", "lzma", "xz"):
        found[f"joblib, {name}"] = lambda path, name=name: joblib.dump(call, path, compress=(name, 3))
    found |= {
        "joblib": lambda path: joblib.dump(call, path),
        "torch.save of an object": saved(call, pickle_protocol=4),
        "torch.save of weights and an object": saved({"w": torch.ones(2), "x": call}),
        "torch.save of a whole network": saved(other_network()),
        "old torch.save of a whole network": saved(other_network(), _use_new_zipfile_serialization=False),
        "objects of numpy": _objects(call),
        "arrays of numpy with objects": lambda path: _npz(path, call),
        "tar of torch 0.1": _tar({"sys_info": plain, "pickle": plain, "storages": plain, "tensors": plain}),
        "tar behind a pickle": plain + _tar({"pickle": plain}),
    }
    return found


def _objects(value: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([value], dtype=object), allow_pickle=True)
    return file.getvalue()


def _npz(path: Path, value: object) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.array([value], dtype=object))


def _tar(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as target:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            target.addfile(about, io.BytesIO(content))
    return file.getvalue()


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return file.getvalue()


def _archives(scene: Scene) -> dict[str, Content]:
    program = programs(scene)["os.system in protocol 2"]
    weights = named("w", tensor(sizes(2), sizes(1), count=2))
    valid = archive(weights, _0=bytes(8))
    code = {"archive/code/__torch__.py": scene.python.encode(), "archive/constants.pkl": program}
    return {
        "TorchScript": _script,
        "archive with code": _zip({"archive/data.pkl": program, "archive/version": b"3\n", **code}),
        "archive without a pickle": _zip({"archive/version": b"3\n", **code}),
        "archive of two pickles": rewritten(archive(program), twice="data.pkl"),
        "archive whose pickle lies elsewhere": _zip({"../../data.pkl": program, "/data.pkl": program}),
        "archive in an archive": _zip({"archive/data.pkl": archive(program)}),
        "archive without its numbers": archive(weights),
        "archive of a bomb": lambda path: path.write_bytes(
            rewritten(saved({"w": torch.zeros(64 * MIB)}), method=zipfile.ZIP_DEFLATED)
        ),
        "archive of a packed program": rewritten(archive(program), method=zipfile.ZIP_DEFLATED),
        "archive of 50,000 members": rewritten(valid, more=50_000),
        "archive with a wrong checksum": valid.replace(bytes(8), b"\1" * 8, 1),
        "archive of long names": _zip({f"{index:060000d}": b"" for index in range(150)}),
        "archive of a long pickle": archive(b"\x80\x02" + b"}" * (8 * MIB)),
    }


def _script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it is going out of use, and the files are still there
        torch.jit.save(torch.jit.script(other_network()), path)


def _safetensors() -> dict[str, Content]:
    lies = parameters(test_a_safetensors_header_that_lies_is_refused)
    found: dict[str, Content] = {
        f"safetensors: lie {index}": safe(entry, bytes(8)) for index, (entry,) in enumerate(lies)
    }
    entry = b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    found |= {
        f"safetensors: {name}": safe(header, bytes(8))
        for name, header in {
            "a name twice": b'{"w":' + entry + b',"w":' + entry + b"}",
            "no UTF-8": b'{"\xff\xfe":' + entry + b"}",
            "negative sizes": b'{"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}',
            "negative offsets": b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}',
            "offsets beyond 64 bits": b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551624]}}',
            "a hole": b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
            "bytes left over": b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            "no dictionary": b"{]",
            "metadata of lists": b'{"__metadata__":[[]],"w":' + entry + b"}",
            "terminal escapes": b'{"\\u001b[2J":{"dtype":"\\u001b[31m","shape":[2],"data_offsets":[0,8]}}',
            "deep JSON": b'{"w":' + b'{"a":' * 200_000,
        }.items()
    }
    return found | {
        "safetensors: a header beyond the file": struct.pack("<Q", 2**63) + b"{}",
        "safetensors: a header of 99 MB": sparse(99 * 10**6 + 8, struct.pack("<Q", 99 * 10**6) + b"{"),
        "safetensors: a header without end": struct.pack("<Q", 4) + b'{"w"',
        "safetensors: another network": save(other_network().state_dict()),
        "safetensors: NaN": save({name: value * torch.nan for name, value in _weights().items()}),
        "safetensors: complex": save({name: value.to(torch.complex64) for name, value in _weights().items()}),
    }


def _weights() -> dict[str, torch.Tensor]:
    return {"0.weight": torch.ones(4, 3), "0.bias": torch.ones(4)}


def _sizes() -> dict[str, Content]:
    inside: dict[str, Any] = {}
    inside["state_dict"] = inside
    deep: dict[str, Any] = {"w": torch.ones(1)}
    for _ in range(60):
        deep = {"model": deep}
    twice = b")" + b"".join(b"q\x00h\x00\x86" for _ in range(60))
    found: dict[str, Content] = {
        "weights inside themselves": saved(inside),
        "weights under sixty keys": saved(deep),
        "weights that are a list": saved([torch.ones(1)]),
        "a tuple of 2**60": archive(b"\x80\x02}" + text("w") + twice + b"s."),
        "lists of lists": archive(b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b"."),
        "16 GiB of one number": saved({"w": torch.zeros(1).expand(2**32)}),
        "overlapping rows": saved({"w": torch.zeros(2000).as_strided((1000, 1000), (1, 1))}),
        "an unfinished pickle": archive(b"\x80\x02}"),
        "a pickle that takes too much from its stack": archive(b"\x80\x02}ss."),
        "a pickle of a memo without end": archive(b"\x80\x02}j\xff\xff\xff\xff."),
        "a hole of 2**40": sparse(2**40, b"\x80\x02"),
        "a sparse archive of 2**40": sparse(2**40, b"PK\x03\x04"),
        "a storage of 2**61": archive(named("w", tensor(sizes(2**61), sizes(1), count=2**61)), _0=bytes(8)),
        "an old file that states 2**60": saved({"w": torch.ones(5)}, _use_new_zipfile_serialization=False).replace(
            struct.pack("<q", 5) + torch.ones(5).numpy().tobytes(), struct.pack("<q", 2**60)
        ),
    }
    for bits in (31, 40, 60):
        entry = named("w", tensor(sizes(2**bits), sizes(1), count=2**bits))
        found[f"a storage of 2**{bits}"] = archive(entry, _0=bytes(8))
        found[f"an old file with a storage of 2**{bits}"] = legacy(entry)
    for index, (call,) in enumerate(parameters(test_nothing_of_a_stated_size_is_made)):
        found[f"a call for much memory, {index}"] = archive(named("big", call + b"s" + text("n") + integer(1)))
    for (name,) in parameters(test_what_is_not_of_a_checkpoint_is_named_and_not_imported):
        found[f"a global {name!r}"] = archive(b"\x80\x02c" + name.encode() + b"\n(tR.")
    return found


def _cut() -> dict[str, Content]:
    valid = {
        "safetensors": save(_weights()),
        "archive": saved(_weights()),
        "old torch file": saved(_weights(), _use_new_zipfile_serialization=False),
    }
    found: dict[str, Content] = {"empty": b"", "a line": b"hello\n", "zeros": bytes(4096), "a page": b"<html></html>"}
    for name, content in valid.items():
        for part in (0.2, 0.6, 0.95):
            found[f"{name}, cut at {part:.0%}"] = content[: int(part * len(content))]
    return found

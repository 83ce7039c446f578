import hashlib
import pickle
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from auditor.targets.checkpoint_file import Checkpoint, fit_weights, read_checkpoint
from defenses.errors import CheckpointError


def network(width: int = 4) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.BatchNorm1d(width), torch.nn.Linear(width, 2))


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.target), "w")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_weights_come_back_whatever_the_file_is_called(form: str, tmp_path: Path) -> None:
    weights = network().state_dict()
    path = tmp_path / "model.dat"
    if form == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=form == "zip")
    checkpoint = read_checkpoint(path)
    assert same(checkpoint.weights, weights)
    assert checkpoint.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (checkpoint.name, checkpoint.notes) == ("model.dat", ())
    fitted = fit_weights(network(), checkpoint)
    assert same(fitted.state_dict(), weights)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_usual_nests_are_unwrapped_and_said(key: str, tmp_path: Path) -> None:
    model = network()
    optimiser = torch.optim.Adam(model.parameters())
    torch.save({key: model.state_dict(), "optimizer": optimiser.state_dict(), "epoch": 3}, tmp_path / "a.pt")
    checkpoint = read_checkpoint(tmp_path / "a.pt")
    assert same(checkpoint.weights, model.state_dict())
    assert checkpoint.notes == (f"took the weights under '{key}' and left optimizer, epoch aside",)


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("module.", "DataParallel"),
        ("_module.", "Opacus"),
        ("_orig_mod.", "torch.compile"),
        ("_module.module.", "Opacus"),
        ("module._orig_mod.", "DataParallel"),
    ],
)
def test_prefixes_of_wrappers_are_removed_and_said(prefix: str, says: str, tmp_path: Path) -> None:
    weights = network().state_dict()
    save_file({prefix + name: value for name, value in weights.items()}, tmp_path / "a.safetensors")
    checkpoint = read_checkpoint(tmp_path / "a.safetensors")
    assert same(checkpoint.weights, weights)
    assert any(says in note for note in checkpoint.notes)


def test_a_compiled_part_is_renamed() -> None:
    model = torch.nn.Module()
    model.body = torch.compile(torch.nn.Linear(2, 2))
    assert "body._orig_mod.weight" in model.state_dict()


def test_an_architecture_with_a_part_called_module_still_fits(tmp_path: Path) -> None:
    model = torch.nn.Module()
    model.module = torch.nn.Linear(2, 2)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    other = torch.nn.Module()
    other.module = torch.nn.Linear(2, 2)
    fit_weights(other, read_checkpoint(tmp_path / "a.pt"))
    assert same(other.state_dict(), model.state_dict())


def test_half_precision_is_widened_and_said(tmp_path: Path) -> None:
    torch.save(network().half().state_dict(), tmp_path / "a.pt")
    checkpoint = read_checkpoint(tmp_path / "a.pt")
    assert checkpoint.weights["0.weight"].dtype == torch.float32
    assert checkpoint.notes == ("widened 8 of 9 tensors from torch.float16 to float32",)
    fit_weights(network(), checkpoint)


def test_entries_that_are_not_tensors_are_left_out_and_said(tmp_path: Path) -> None:
    torch.save({**network().state_dict(), "epoch": 3}, tmp_path / "a.pt")
    assert read_checkpoint(tmp_path / "a.pt").notes == ("left out epoch, which are not tensors",)


# --- files that could run code


def plant(form: str, path: Path, target: Path) -> None:
    bomb = Bomb(target)
    match form:
        case "pickle":
            path.write_bytes(pickle.dumps(bomb))
        case "old pickle":
            path.write_bytes(pickle.dumps(bomb, protocol=0))
        case "torch zip":
            torch.save({"state_dict": network().state_dict(), "extra": bomb}, path)
        case "torch legacy":
            torch.save({"weight": bomb}, path, _use_new_zipfile_serialization=False)
        case "joblib":
            joblib.dump(bomb, path)
        case "joblib compressed":
            joblib.dump(bomb, path, compress=3)
        case "pickle named like a torch archive":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", pickle.dumps(bomb))
                archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize(
    "form",
    [
        "pickle",
        "old pickle",
        "torch zip",
        "torch legacy",
        "joblib",
        "joblib compressed",
        "pickle named like a torch archive",
    ],
)
def test_a_file_that_would_run_code_is_refused_and_not_run(
    form: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This variable asks torch to unpickle everything; an explicit argument must win over it.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, target = tmp_path / f"model.{ending}", tmp_path / "exploded"
    plant(form, path, target)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert not target.exists()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "not read" in sentence
    assert "torch.save(model.state_dict()" in sentence
    assert "safetensors" in sentence
    assert "weights_only=False" not in sentence


def test_a_planted_file_does_run_where_it_is_unpickled(tmp_path: Path) -> None:
    # The positive control: without it the test above would pass with a plant that does nothing.
    plant("torch zip", tmp_path / "model.pt", tmp_path / "exploded")
    torch.load(tmp_path / "model.pt", weights_only=False)["extra"].close()
    assert (tmp_path / "exploded").exists()


def test_a_whole_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"would call torch\.nn\.modules\.\w+\.\w+, which could run code"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="TorchScript archive, which is a program"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "neither a safetensors file nor one of torch"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04 broken", "damaged archive"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at all}", "damaged safetensors"),
        (b"\x89HDF\r\n\x1a\n", "neither"),
    ],
)
def test_other_files_are_named_for_what_they_are(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("legacy", [True, False])
def test_a_truncated_checkpoint_is_damaged_and_not_a_traceback(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    for length in (100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="damaged") as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value)


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a\.pt cannot be read: No such file"):
        read_checkpoint(tmp_path / "a.pt")
    for content, sentence in (
        ([torch.zeros(2)], "holds a list, not a state dict"),
        (torch.zeros(2), "holds a Tensor, not a state dict"),
        ({"epoch": 3, "loss": 0.1}, "holds no weights: it has epoch, loss"),
        ({}, "holds no weights: it has nothing"),
        ({"model": {"w": torch.ones(1)}, "state_dict": {"w": torch.ones(1)}}, "weights under state_dict, model"),
        ({"w": torch.ones(2).to_sparse()}, "quantised, sparse or empty weights in w"),
        ({"w": torch.ones(2).to(torch.float8_e4m3fn)}, r"quantised, sparse or empty weights in w \(torch.float8"),
        ({"a._orig_mod.w": torch.ones(1), "a.w": torch.ones(1)}, "same name with and without"),
    ):
        torch.save(content, tmp_path / "b.pt")
        with pytest.raises(CheckpointError, match=sentence):
            read_checkpoint(tmp_path / "b.pt")
    np.savez(tmp_path / "c.npz", w=np.ones(2))
    with pytest.raises(CheckpointError, match="zip archive that torch"):
        read_checkpoint(tmp_path / "c.npz")


# --- weights that do not fit


def test_every_name_and_shape_that_does_not_fit_is_said() -> None:
    weights = network(width=5).state_dict()
    weights["9.bias"] = weights.pop("2.bias")
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        fit_weights(module, Checkpoint(weights, digest="", name="model.pt"))
    sentence = str(caught.value)
    assert "model.pt does not fit the architecture: it lacks 2.bias (1 in all)" in sentence
    assert "the architecture does not have 9.bias (1 in all)" in sentence
    assert "0.weight ((5, 3) in the file, (4, 3) in the architecture)" in sentence
    assert "and 2 more (7 in all)" in sentence
    assert "number of classes" in sentence
    assert same(module.state_dict(), before)


def test_kinds_of_numbers_must_agree() -> None:
    weights = network().state_dict()
    weights["0.bias"] = weights["0.bias"].long()
    with pytest.raises(CheckpointError, match=r"0\.bias \(torch\.int64 in the file, torch\.float32 in the arch"):
        fit_weights(network(), Checkpoint(weights, digest=""))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    weights = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    weights["1.running_var"][2] = weights["2.bias"][0] = value
    with pytest.raises(CheckpointError, match=r"NaN or infinite weights in 1\.running_var, 2\.bias \(2 in all\)"):
        fit_weights(network(), Checkpoint(weights, digest=""))


def test_double_precision_is_rounded_into_the_module() -> None:
    weights = network().double().state_dict()
    module = fit_weights(network(), Checkpoint(weights, digest=""))
    torch.testing.assert_close(module.state_dict()["0.weight"], weights["0.weight"].float())

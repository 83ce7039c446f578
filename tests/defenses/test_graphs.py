"""Records of pure functions: the same answers, one record per shape, and a way on where recording fails."""

import logging
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import grad

from defenses import compiled_functions
from defenses.compiled_functions import CompiledFunction
from defenses.errors import PlanError


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_functions, "_said", set())


def slope(weights: dict[str, Tensor], x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    def loss(weights: dict[str, Tensor]) -> Tensor:
        return ((x @ weights["w"]).tanh() + weights["b"]).square().sum()

    return grad(loss)(weights), x.sum()


def arguments(size: int) -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(size)
    return {"w": torch.randn(3), "b": torch.randn(())}, torch.randn(size, 3)


def test_a_record_answers_as_the_function_does_for_every_shape() -> None:
    graph = CompiledFunction(slope, name="slope")
    for size in (4, 7, 4):
        for draw in (size, size + 100):
            weights, x = arguments(draw)
            x = x[:size]
            (found, total), (expected, expected_total) = graph(weights, x), slope(weights, x)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in expected)
            assert torch.equal(total, expected_total)


def test_a_function_is_recorded_once_per_shape() -> None:
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(x.shape)
        return x + 1

    graph = CompiledFunction(counted, name="counted")
    for size in (2, 3, 2, 3):
        graph(torch.zeros(size))
    assert len(calls) == 4  # each shape is run once and recorded once


def test_added_zeros_are_left_out_but_not_what_they_broadcast() -> None:
    def tapped(x: Tensor) -> tuple[Tensor, Tensor]:
        return x + x.new_zeros(x.shape), x[:1] + x.new_zeros(x.shape)

    x = torch.randn(3, 2)
    kept, grown = CompiledFunction(tapped, name="tapped")(x)
    assert torch.equal(kept, x)
    assert grown.shape == (3, 2)


def test_what_cannot_be_recorded_runs_as_it_is_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    def reads(x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x

    graph = CompiledFunction(reads, name="a function that looks at values")
    with caplog.at_level(logging.WARNING):
        for size in (1, 2, 3):
            assert torch.equal(graph(torch.ones(size)), 2 * torch.ones(size))
            assert torch.equal(graph(-torch.ones(size)), -torch.ones(size))
    assert caplog.text.count("cannot be recorded") == 1


def test_constants_views_and_writes_are_recorded() -> None:
    scale = torch.tensor([1.0, 2.0, 3.0])

    def written(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        room = torch.zeros(len(x), 3)
        room[:, 1:] += x[:, 1:]
        top, places = (room * scale).max(1)
        return top, places, x.data * 2

    graph = CompiledFunction(written, name="writing")
    for _ in range(3):
        x = torch.randn(5, 3)
        assert all(torch.equal(found, wanted) for found, wanted in zip(graph(x), written(x), strict=True))


def test_another_face_of_an_argument_is_not_taken_for_a_constant(caplog: pytest.LogCaptureFixture) -> None:
    def hidden(x: Tensor) -> Tensor:
        return x + torch.from_dlpack(x.detach())

    graph = CompiledFunction(hidden, name="a function with a back door")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            x = torch.randn(4)
            assert torch.equal(graph(x), 2 * x)
    assert caplog.text.count("identity") == 1


def test_compiled_is_the_same_to_rounding() -> None:
    graph, (weights, x) = CompiledFunction(slope, name="slope"), arguments(64)
    (found, total), (expected, _) = graph(weights, x, compiled=True), slope(weights, x)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert float(total) == pytest.approx(float(x.sum()), rel=1e-5)


def test_without_a_compiler_it_runs_as_recorded_and_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise RuntimeError("No working C++ compiler found\nand a long explanation")

    monkeypatch.setattr("torch._inductor.standalone_compile", missing)
    graph = CompiledFunction(slope, name="slope")
    with caplog.at_level(logging.WARNING):
        for size in (3, 4):
            weights, x = arguments(size)
            assert torch.equal(graph(weights, x, compiled=True)[0]["w"], slope(weights, x)[0]["w"])
    assert caplog.text.count("No working C++ compiler") == 1
    assert "long explanation" not in caplog.text


def test_compiled_code_is_kept_where_nobody_else_can_put_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded from that folder is run, and TorchInductor's default is a shared temporary folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    compiled_functions._keep_compiled_code_private()
    folder = tmp_path / "cache" / "privacy-auditor" / "compiled"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(shared))
    with pytest.raises(PlanError, match="mode 0777"):
        compiled_functions._keep_compiled_code_private()

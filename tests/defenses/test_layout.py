"""The choice of a layout follows what is measured, and is made only where it can pay."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from defenses.architectures import Architecture
from defenses.defense import Job
from defenses.engine import layout
from defenses.engine.executors import InProcess, Processes
from defenses.engine.layout import Layout, choose_layout, layout_key, usual_layout
from defenses.recipe import Recipe
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.schemes.none import NoDefense

CPU = torch.device("cpu")


def job(epochs: int = 100, name: str = "mlp") -> Job:
    rng = np.random.default_rng(0)
    records = Records(rng.normal(size=(80, 6)).astype(np.float32), rng.integers(0, 2, 80), 2, Table((), "y", ()))
    recipe = Recipe(architecture=Architecture(name, {"hidden": [4]}), lots=Lots(40, 4, epochs))
    return Job(recipe, NoDefense(), records)


Costs = Callable[..., float]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Costs], list[tuple[int, int, bool]]]:
    """Replace the clock by a cost per model-step of (width, threads, compiled), and list what was asked."""

    def use(cost: Costs) -> list[tuple[int, int, bool]]:
        asked: list[tuple[int, int, bool]] = []

        def seconds(job: Job, width: int, device: torch.device, *, compiled: bool = False) -> float:
            asked.append((width, torch.get_num_threads(), compiled))
            return cost(width, torch.get_num_threads(), compiled)

        monkeypatch.setattr(layout, "_seconds_per_step", seconds)
        return asked

    return use


@pytest.fixture(autouse=True)
def _two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_short_run_is_not_measured(measured: Callable[[Costs], list[tuple[int, int, bool]]]) -> None:
    asked = measured(lambda *_: 1.0)
    assert choose_layout(job(epochs=1), 16, CPU) == Layout(8, 1, 2, False)
    assert asked == []
    asked = measured(lambda *_: 1e-5)
    assert choose_layout(job(), 16, CPU) == Layout(8, 1, 2, False)
    assert asked == [(8, 2, False)]  # seconds of work: nothing else is tried
    assert usual_layout(job(), 3, CPU).width == 3
    assert usual_layout(job(name="cnn"), 16, CPU).width == 1


def test_width_doubles_for_as_long_as_it_helps(measured: Callable[[Costs], list[tuple[int, int, bool]]]) -> None:
    cheapest_at_four = {1: 1.0, 2: 0.7, 4: 0.5, 8: 0.6, 16: 0.1}
    asked = measured(lambda width, threads, _: (3 - threads) * cheapest_at_four[width] * 2e-3)
    assert choose_layout(job(), 16, CPU) == Layout(4, 1, 2, False)
    assert [width for width, threads, _ in asked if threads == 2] == [8, 1, 2, 4, 8]
    measured(lambda width, threads, _: (3 - threads) * 2e-2 / width)
    assert choose_layout(job(), 16, CPU).width == 16  # no wider than there are models
    measured(lambda width, threads, _: (3 - threads) * 1e-3 * (1 if width == 1 else 0.99))
    assert choose_layout(job(), 16, CPU).width == 1  # noise is not a gain


@pytest.mark.parametrize(("alone", "workers"), [(1.5, 2), (1.95, 1)])
def test_processes_are_used_where_one_thread_is_good_enough(
    measured: Callable[[Costs], list[tuple[int, int, bool]]], alone: float, workers: int
) -> None:
    measured(lambda width, threads, compiled: 2e-3 * (1 if threads == 2 else alone) * (1 if width == 1 else 2))
    chosen = choose_layout(job(epochs=1000), 16, CPU)
    assert (chosen.workers, chosen.threads) == ((2, 1) if workers == 2 else (1, 2))
    assert chosen.executor == (Processes(2, threads=1) if workers == 2 else InProcess())
    assert torch.get_num_threads() == 2
    assert choose_layout(job(), 16, CPU).workers == 1  # the run would be over before they had begun to pay
    assert choose_layout(job(epochs=2000), 1, CPU).workers == 1  # one model cannot be shared out


def test_compiling_is_tried_where_it_can_pay_and_kept_if_faster(
    measured: Callable[[Costs], list[tuple[int, int, bool]]],
) -> None:
    for gain, kept in ((0.5, True), (0.97, False)):
        for epochs, tried in ((20, []), (100, [2]), (2000, [2, 1])):
            asked = measured(lambda width, threads, compiled, gain=gain: 3e-3 * (gain if compiled else 1) * 2 / threads)
            assert choose_layout(job(epochs=epochs), 16, CPU).compiled is (kept and bool(tried))
            assert [threads for _, threads, compiled in asked if compiled] == tried


def test_a_longer_run_is_worth_compiling_in_every_process(
    measured: Callable[[Costs], list[tuple[int, int, bool]]],
) -> None:
    # As measured for a small CNN: 5 ms, 2.9 ms compiled; with one thread 8.2 and 4.2 ms.
    costs = {(2, False): 5e-3, (2, True): 2.9e-3, (1, False): 8.2e-3, (1, True): 4.2e-3}
    measured(lambda width, threads, compiled: costs[threads, compiled] * (1 if width == 1 else 1.2))
    assert choose_layout(job(epochs=79), 16, CPU) == Layout(1, 1, 2, compiled=True)
    assert choose_layout(job(epochs=316), 16, CPU) == Layout(1, 2, 1, compiled=True)


def test_widths_that_do_not_fit_are_not_taken(measured: Callable[[Costs], list[tuple[int, int, bool]]]) -> None:
    def cost(width: int, threads: int, compiled: bool) -> float:
        if width > 2:
            raise MemoryError
        return (3 - threads) * 2e-2 / width

    measured(cost)
    assert choose_layout(job(), 16, CPU).width == 2


@pytest.mark.parametrize("defense", [NoDefense(), DPSGD(noise_multiplier=1.0)], ids=lambda defense: defense.name)
def test_real_steps_are_measured(defense: NoDefense | DPSGD, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MEASURED_SECONDS", 0.01)
    chosen = choose_layout(replace(job(), defense=defense), 4, CPU)
    assert chosen.width in (1, 2, 4)
    assert chosen.workers == 1


def test_a_choice_is_kept_by_what_it_depends_on() -> None:
    key = layout_key(job(), 16, CPU)
    assert key == layout_key(job(), 64, CPU)  # more shadows find those that are there
    others = [(job(), 2, CPU), (job(epochs=7), 16, CPU), (job(), 16, torch.device("cuda"))]
    others.append((replace(job(), defense=DPSGD(noise_multiplier=1.0)), 16, CPU))
    assert len({key, *(layout_key(*other) for other in others)}) == 5

"""What is told of a GPU beside the times, on GPUs that are made up: only the arithmetic is under test here."""

import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from convkit.cli import figures
from convkit.compress.model import TensorSpec
from convkit.runtimes.bench import gpu
from convkit.runtimes.bench.block import BlockPlan, time_block
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.clock import VirtualClock
from convkit.runtimes.bench.measure import Measurement, Settings, Workbench, measure
from convkit.runtimes.bench.worker import InlineWorker
from convkit.runtimes.null import NullSession
from convkit.runtimes.session import NodeTime, OnDevice, nvml
from convkit.runtimes.session.nvml import Reading

CALM = Reading(1980, 3201, 46, 130.0)


@dataclass
class Device:
    """A session whose calls take `seconds` by the device's clock, twice that by the host's. Its clocks rise with
    every reading, as far as `clocks` say."""

    clock: VirtualClock
    seconds: float = 1e-3
    clocks: Sequence[int] = (1980,)
    held_by: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...] = (TensorSpec("input", (1,), "float32", (1,)),)
    outputs: tuple[TensorSpec, ...] = (TensorSpec("output", (1,), "float32", (1,)),)
    calls: list[int] = field(default_factory=list)
    read: int = 0

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        raise AssertionError("timed on the host")

    def profile(self, inputs: Mapping[str, np.ndarray], repeats: int) -> list[NodeTime]:
        return []

    def timed(self, inputs: Mapping[str, np.ndarray]) -> float:
        self.clock.sleep(2 * self.seconds)
        self.calls.append(self.read)
        return self.seconds

    def reading(self) -> Reading:
        self.read += 1
        return replace(CALM, clock=self.clocks[min(self.read, len(self.clocks)) - 1], held_by=self.held_by)

    def close(self) -> None:
        pass


def measured(*devices: Device) -> Measurement:
    clock = devices[0].clock
    known = dict(zip("abc", devices, strict=False))
    bench = Workbench(clock, lambda candidate: InlineWorker(known[candidate.name], clock))
    return measure([Candidate(name, "null", "1ms") for name in known], settings=Settings(budget=2), workbench=bench)


def test_a_device_is_timed_by_its_own_clock() -> None:
    clock = VirtualClock()
    block = time_block(Device(clock), [{"input": np.zeros(1)}], clock, BlockPlan())
    assert set(block.seconds) == {1e-3}
    assert block.gpu == CALM
    assert isinstance(Device(clock), OnDevice)
    assert not isinstance(NullSession(1.0, clock), OnDevice)
    assert time_block(NullSession(1e-3, clock), [{"input": np.zeros(1)}], clock, BlockPlan()).gpu is None


def test_it_warms_up_until_its_clocks_stand_still() -> None:
    rising = (345, 800, 1400, 1980)
    plan = BlockPlan(warm_seconds=10.0)
    calls = []
    for clocks in ((1980,), rising):
        clock = VirtualClock()
        calls.append(time_block(Device(clock, clocks=clocks), [{"input": np.zeros(1)}], clock, plan).warm_up)
    apart = plan.apart / (2 * Device(clock).seconds)
    assert calls[1] - calls[0] == pytest.approx((len(rising) - 1) * apart, abs=len(rising))
    assert calls[0] == pytest.approx(apart, abs=2)


def test_conditions_are_told_with_the_figures() -> None:
    clock = VirtualClock()
    found = measured(Device(clock), Device(clock))
    assert found["a"].gpu == gpu.Conditions((1980,) * 3, (3201,) * 3, (46,) * 3, (130.0,) * 3, {})
    assert not found.warnings
    told = "a: GPU at 1980 MHz (1980–1980), 46–46 °C, 130 W, held down by nothing"
    assert figures.gpus(found)[0] == told


def test_clocks_that_move_or_are_held_down_are_warned_of() -> None:
    clock = VirtualClock()
    found = measured(Device(clock, clocks=[1980] * 6 + [1200] * 1000, held_by=("hardware thermal slowdown",)))
    assert any("clock moved between 1200 and 1980 MHz" in words for words in found.warnings)
    assert any("hardware thermal slowdown in 100% of the blocks" in words for words in found.warnings)


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        (0, ()),
        (0x1 | 0x2, ()),  # idle, clocks set by a person
        (0x4, ("power cap",)),
        (0x20 | 0x40, ("software thermal slowdown", "hardware thermal slowdown")),
        (0x8 | 0x80, ("hardware slowdown", "power brake")),
    ],
)
def test_reasons_are_those_of_nvml(mask: int, names: tuple[str, ...]) -> None:
    assert nvml.held_by(mask) == names


def test_a_gpu_that_says_nothing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver without a device, or one that this process may not ask."""

    class Refused(Exception):  # noqa: N818 - as the package names its own
        pass

    def refuse(*_: object) -> int:
        raise Refused

    package = types.ModuleType("pynvml")
    monkeypatch.setitem(sys.modules, "pynvml", package)
    for name in ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"):
        monkeypatch.setattr(package, name, refuse, raising=False)
    monkeypatch.setattr(package, "NVMLError", Refused, raising=False)
    monkeypatch.setattr(package, "nvmlInit", lambda: None, raising=False)
    assert nvml.facts() is None


@pytest.mark.parametrize(
    ("visible", "asked"),
    [(None, 0), ("2,0", 2), ("GPU-b1", 1), ("GPU-none", None), ("MIG-one", "MIG-one"), ("", None), ("-1", None)],
)
def test_the_first_gpu_is_that_which_programs_see(
    visible: str | None, asked: int | str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = types.ModuleType("pynvml")
    monkeypatch.setitem(sys.modules, "pynvml", package)
    told = {
        "nvmlInit": lambda: None,
        "NVMLError": RuntimeError,
        "NVML_CLOCK_SM": 1,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetUUID": lambda device: ["GPU-a1b2c3", "GPU-b1b2c3"][device],
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetName": lambda device: f"the GPU {device}",
        "nvmlDeviceGetMemoryInfo": lambda _: types.SimpleNamespace(total=8),
        "nvmlSystemGetDriverVersion": lambda: "1",
        "nvmlDeviceGetMaxClockInfo": lambda *_: 1980,
    }
    for name, value in told.items():
        monkeypatch.setattr(package, name, value, raising=False)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = nvml.facts()
    assert (None if found is None else found["name"]) == (None if asked is None else f"the GPU {asked}")


def test_the_masks_are_those_of_the_package() -> None:
    pynvml = pytest.importorskip("pynvml")
    every = (
        pynvml.nvmlClocksThrottleReasonSwPowerCap,
        pynvml.nvmlClocksThrottleReasonHwSlowdown,
        pynvml.nvmlClocksThrottleReasonSwThermalSlowdown,
        pynvml.nvmlClocksThrottleReasonHwThermalSlowdown,
        pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
    )
    assert [len(nvml.held_by(mask)) for mask in every] == [1] * 5
    assert nvml.held_by(pynvml.nvmlClocksThrottleReasonGpuIdle) == ()

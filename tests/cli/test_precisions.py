"""Formats that are a setting of the whole network: open where the device has them, told where it has not."""

import dataclasses
from dataclasses import replace

import pytest

from convkit.cli import precisions
from convkit.cli.precisions import F32, Precision
from convkit.compress import target as targets
from convkit.compress.errors import ConvkitError, NotAvailableError
from convkit.compress.option import Option
from convkit.runtimes import openvino

BF16 = Precision("bf16", Option("bf16", "bf16"))
OPENVINO, ONNXRUNTIME = targets.load("openvino-cpu"), targets.load("onnxruntime-cpu")


def device(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """A device that computes in the precisions `names`."""
    monkeypatch.setattr(openvino, "PART", replace(openvino.PART, precisions=lambda: names))


def test_what_the_device_has_is_a_precision_and_the_rest_are_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    device(monkeypatch, "f32", "bf16")
    assert precisions.asked(OPENVINO, ("int8", "bf16", "int4")) == (("int8", "int4"), (F32, BF16))
    assert precisions.asked(OPENVINO, ("bf16",)) == ((), (F32, BF16))
    assert precisions.asked(OPENVINO, ("int8",)) == (("int8",), (F32,))
    assert (F32.knobs, BF16.knobs) == ({}, {"precision": "bf16"})


def test_what_the_device_lacks_is_not_available_or_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device(monkeypatch, "f32")
    assert precisions.asked(OPENVINO, ("int8", "bf16")) == (("int8",), (F32,))
    told = capsys.readouterr().err
    assert "openvino computes nothing in bf16 on this device" in told
    assert len(told.strip().splitlines()) == 1
    for names in (("bf16",), ("bf16", "fp16")):
        with pytest.raises(NotAvailableError, match="bf16"):
            precisions.asked(OPENVINO, names)


def test_a_target_that_has_no_such_setting_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    device(monkeypatch, "f32", "bf16")
    with pytest.raises(ConvkitError, match="bf16 is no format to search weights in"):
        precisions.asked(ONNXRUNTIME, ("int8", "bf16"))


def test_a_plan_is_not_run_in_another_precision_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    device(monkeypatch, "f32")
    precisions.check({"pinning": False}, "openvino")
    with pytest.raises(NotAvailableError, match="openvino computes nothing in bf16 on this device"):
        precisions.check({"precision": "bf16"}, "openvino")
    device(monkeypatch, "f32", "bf16")
    precisions.check({"precision": "bf16"}, "openvino")


def test_every_precision_is_a_format() -> None:
    assert [precisions.format_of(name) for name in ("f32", "bf16", "f16")] == ["fp32", "bf16", "fp16"]
    assert {field.name for field in dataclasses.fields(Precision)} == {"name", "floating"}

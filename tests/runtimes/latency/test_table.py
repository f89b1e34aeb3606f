"""The LatencyTable: times add up, changes are paid where formats differ, and a file holds all of it."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.compress.errors import ConvkitError
from convkit.compress.option import Option
from convkit.runtimes.latency import table as tables
from convkit.runtimes.latency.structure import OUTSIDE, Tensor
from convkit.runtimes.latency.table import Fingerprint, LatencyTable, predict
from tests.runtimes.latency import virtual
from tests.runtimes.latency.virtual import FLOAT, LOW

KNOWN = virtual.truth()
PRINT = Fingerprint("model", "target", "onnxruntime", "1.0", {"cpu": "any", "flags": ["avx2"]}, {"threads": 2})
TABLE = LatencyTable(PRINT, False, FLOAT, KNOWN.layers, KNOWN.structure.tensors, KNOWN.changes, KNOWN.rest, mapped=0.98)
some_layers = st.sets(st.sampled_from(sorted(KNOWN.layers)))


@given(some_layers)
def test_a_prediction_is_the_sum_of_kernels_and_of_changes(low: set[str]) -> None:
    formats = dict.fromkeys(low, LOW)
    assert predict(TABLE, formats) == pytest.approx(KNOWN.seconds(formats))


@given(some_layers, st.sampled_from(sorted(KNOWN.layers)))
def test_without_changes_every_layer_saves_what_it_saves_alone(low: set[str], name: str) -> None:
    free = dataclasses.replace(TABLE, changes={})
    others = dict.fromkeys(low - {name}, LOW)
    saved = predict(free, others) - predict(free, {**others, name: LOW})
    assert saved == pytest.approx(KNOWN.layers[name][FLOAT] - KNOWN.layers[name][LOW])


def test_a_tensor_pays_once_for_all_its_readers() -> None:
    tensor = Tensor("t", "a", ("b", "c", OUTSIDE), 1)
    assert tables.changes(tensor, {"a": LOW}, FLOAT) == ["uint8>fp32"]
    assert tables.changes(tensor, {"b": LOW, "c": LOW}, FLOAT) == ["fp32>uint8"]
    assert tables.changes(tensor, {"a": LOW, "b": LOW, "c": LOW}, FLOAT) == ["uint8>fp32"]
    assert tables.changes(dataclasses.replace(tensor, readers=("b",)), {"a": LOW, "b": LOW}, FLOAT) == []
    assert tables.changes(dataclasses.replace(tensor, producer=OUTSIDE), {}, FLOAT) == []


def test_a_format_or_layer_it_knows_no_time_of_is_told() -> None:
    with pytest.raises(ConvkitError, match="no time for layer 'layer0' in fp8_e4m3"):
        predict(TABLE, {"layer0": "fp8_e4m3"})
    with pytest.raises(ConvkitError, match="no layer 'conv9'"):
        predict(TABLE, {"conv9": LOW})


def test_a_file_holds_all_of_it(tmp_path: Path) -> None:
    tables.write(TABLE, tmp_path / "table.json")
    assert tables.read(tmp_path / "table.json") == TABLE
    assert json.loads((tmp_path / "table.json").read_text())["schema_version"] == tables.SCHEMA_VERSION


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 99}', '{"schema_version": 1, "rest": 0}'])
def test_what_is_no_table_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(ConvkitError, match="is no latency table"):
        tables.read(tmp_path / "table.json")


def test_edges_say_the_same_as_the_prediction() -> None:
    """One layer is read by two; what is outside the network stays in float."""
    edges = tables.edges(TABLE)
    assert any(len(edge.consumers) > 1 for edge in edges)
    for chosen in itertools.product([FLOAT, LOW], repeat=len(KNOWN.layers)):
        formats = dict(zip(KNOWN.layers, chosen, strict=True))
        options = {name: Option(number, number) for name, number in {**formats, OUTSIDE: FLOAT}.items()}
        total = TABLE.rest + sum(TABLE.layers[name][number] for name, number in formats.items())
        total += sum(edge.change(*pair) for edge in edges for pair in edge.changes(options))
        assert total == pytest.approx(predict(TABLE, formats))

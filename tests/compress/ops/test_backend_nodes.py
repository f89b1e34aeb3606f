"""The onnx wheel's own node tests as the oracle: each goes through the importer and is run in torch."""

from __future__ import annotations

import fnmatch
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from convkit.compress import ops
from convkit.compress.errors import ConvkitError
from convkit.compress.model import ModelRef
from convkit.compress.sources import onnx as source
from convkit.compress.sources._onnx_import import missing
from convkit.compress.sources._onnx_operation import tensor

OLDEST, NEWEST = 9, 25
AT_LEAST = 1180
"""Cases that must pass; the wheel brings some more with every release."""

EXCLUDED = {
    "*_uint16*": "torch has no arithmetic on uint16",
    "*_uint32*": "torch has no arithmetic on uint32",
    "*_uint64*": "torch has no arithmetic on uint64",
    "test_bitwise_not_3d": "torch has no arithmetic on uint16",
    "*INT4*": "torch has no 4-bit integers",
    "*INT2*": "torch has no 2-bit integers",
    "*FLOAT4E2M1*": "torch has no arithmetic on 4-bit floats",
    "*_int4": "torch has no 4-bit integers",
    "*_uint4": "torch has no 4-bit integers",
    "*_int2": "torch has no 2-bit integers",
    "*_uint2": "torch has no 2-bit integers",
    "*_float4e2m1": "torch has no 4-bit floats",
    "*_no_saturate_*FLOAT8E4M3*": "torch's own cast to float8 saturates",
    "test_training_dropout*": "a Model is in evaluation mode: nothing is dropped",
    "test_dropout_*mask*": "convkit computes no dropout mask",
    "test_batchnorm_*training_mode": "a Model is in evaluation mode",
    "test_maxpool_with_argmax_*": "convkit computes no indices of maxima",
    "test_resize_downsample_scales_*_align_corners": "ONNX Runtime rounds the size first, and so does convkit",
    "test_affine_grid_3d_align_corners_expanded": "an If whose branch is chosen at run time",
    "*E8M0*": "torch has no arithmetic on exponents alone",
    "test_equal_string*": "strings are no tensors",
    "test_if*": "the branch is chosen at run time",
    "test_attention_*bf16*": "torch accumulates bfloat16 in float32, the reference rounds every step",
    "test_attention_*fp16*": "torch accumulates float16 in float32, the reference rounds every step",
    "*sequence*": "sequences are no tensors",
    "test_identity_opt": "optionals are no tensors",
}


def _collected() -> dict[str, Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return {case.name: case for case in collect_testcases(None)}


def _in_range(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """`model` in an opset that convkit reads; None where an operator has no such form there."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if [node.op_type for node in copy.graph.node] == ["LayerNormalization"]:
        # The mean and the deviation, its further outputs, are read in training alone.
        del copy.graph.output[1:], copy.graph.node[0].output[1:]
    for opset in copy.opset_import:
        if opset.domain == "":
            opset.version = min(max(opset.version, OLDEST), NEWEST)
            if not all(_exists(node, opset.version) for node in copy.graph.node):
                return None
    return copy


def _exists(node: onnx.NodeProto, version: int) -> bool:
    try:
        known = onnx.defs.get_schema(node.op_type, version).attributes
    except onnx.defs.SchemaError:
        return False
    return all(attribute.name in known for attribute in node.attribute)


def _is_covered(case: Any) -> bool:
    model = _in_range(case.model)
    return model is not None and not missing(model.graph)


CASES = {name: case for name, case in _collected().items() if _is_covered(case)}
REASONS = {name: why for name in CASES for pattern, why in EXCLUDED.items() if fnmatch.fnmatchcase(name, pattern)}
TRIED = sorted(CASES.keys() - REASONS.keys())


def _tensor(value: Any) -> Tensor:
    if isinstance(value, onnx.TensorProto):
        return tensor(value)
    return tensor(onnx.numpy_helper.from_array(np.asarray(value)))


def _check(name: str) -> None:
    case = CASES[name]
    proto = _in_range(case.model)
    assert proto is not None
    onnx.checker.check_model(proto)
    for inputs, outputs in case.data_sets:
        samples = {i.name: _tensor(x) for i, x in zip(proto.graph.input, inputs, strict=True)}
        model = source.from_proto(proto, ModelRef(name), "", samples)
        got = model(samples)
        for spec, expected in zip(model.outputs, map(_tensor, outputs[: len(model.outputs)]), strict=True):
            assert got[spec.name].dtype == expected.dtype
            wide = [x.double() if x.is_floating_point() else x for x in (got[spec.name], expected)]
            torch.testing.assert_close(*wide, rtol=case.rtol, atol=case.atol, equal_nan=True)


@pytest.mark.parametrize("name", TRIED)
def test_node(name: str) -> None:
    _check(name)


def test_count() -> None:
    assert len(TRIED) >= AT_LEAST


def test_every_exclusion_excludes_something_that_fails() -> None:
    stale = set(EXCLUDED) - {p for p in EXCLUDED for name in CASES if fnmatch.fnmatchcase(name, p) and _fails(name)}
    assert not stale


def _fails(name: str) -> bool:
    try:
        _check(name)
    except (AssertionError, ConvkitError, TypeError, ValueError):
        return True
    return False


def test_every_operator_has_a_node_test() -> None:
    """Operators whose only tests changed form after opset 25, or that have none, are named here."""
    tried = {node.op_type for name in TRIED for node in CASES[name].model.graph.node}
    assert set(ops.names()) - tried <= {"GlobalLpPool"}

"""From an exported program (aten operators) to the Model (ONNX operators)."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.export import graph_signature

from convkit.compress import membership
from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model, TensorSpec
from convkit.compress.sources import _aten, _aten_alias, _aten_place, _aten_size
from convkit.compress.sources._aten_graph import Builder, Constant, Operand

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_SYMBOL = re.compile(r"\bs\d+\b")
_ROUNDS = 3
"""Decomposing may uncover operators that must be decomposed again."""


@dataclass(frozen=True, slots=True)
class FreeSizes:
    """What the program's symbols (`s77`) are called ("N") and what size they have in the sample."""

    names: Mapping[str, str]
    samples: Mapping[str, int]

    def named(self, text: str) -> str:
        """`text` with the program's symbols by the names that they have."""
        return _SYMBOL.sub(lambda found: self.names.get(found[0], found[0]), text)

    def spec(self, name: str, tensor: Tensor) -> TensorSpec:
        """The spec of a tensor of the program."""
        shape = tuple(_aten_size.spell(dim, self.names) for dim in tensor.shape)
        sample = tuple(_aten_size.evaluate(dim, self.samples) for dim in tensor.shape)
        return TensorSpec(name, shape, str(tensor.dtype).removeprefix("torch."), sample)


def to_model(
    program: ExportedProgram,
    inputs: Sequence[str],
    sizes: FreeSizes,
    name: str,
    digest: str,
    owners: Mapping[str, str] | None = None,
) -> Model:
    """The Model of `program`, whose inputs are called `inputs`; parameters are shared with it. `owners`: novel
    convolutions by their layers, where these are known.

    Raises ConvkitError that names the operator, layer and line which has no ONNX form.
    """
    try:
        return _translated(_prepared(program), inputs, sizes, name, digest, owners)
    except ConvkitError as error:
        raise ConvkitError(sizes.named(error.message), hint=error.hint) from error


def _translated(
    program: ExportedProgram,
    inputs: Sequence[str],
    sizes: FreeSizes,
    name: str,
    digest: str,
    owners: Mapping[str, str] | None,
) -> Model:
    builder = Builder()
    environment: _aten.Environment = {}
    fed = _placeholders(program, builder, environment, inputs)
    outputs = [builder.unique(output) for output in _output_names(program)]
    for node in program.graph.nodes:
        if node.op == "call_function":
            _write(builder, node, environment, owners)
    results = _results(program, builder, environment, outputs)
    specs = tuple(sizes.spec(output, made.meta["val"]) for output, made in zip(outputs, results, strict=True))
    given = tuple(sizes.spec(input_name, made.meta["val"]) for input_name, made in fed.items())
    return Model(_module(builder, results), given, specs, name, digest)


def _module(builder: Builder, results: Sequence[fx.Node]) -> fx.GraphModule:
    builder.graph.output(tuple(results))
    builder.graph.eliminate_dead_code()
    for node in builder.graph.nodes:
        node.meta.pop("val", None)
    module = fx.GraphModule(builder.root, builder.graph, class_name="Model")
    module.graph.lint()
    membership.mark(module)
    return module.eval()


def _prepared(program: ExportedProgram) -> ExportedProgram:
    """`program` without ambiguous in-place operators and without operators that have no ONNX form."""
    from torch._decomp import core_aten_decompositions

    for _ in range(_ROUNDS):
        missing = {node.target for node in _untranslatable(program)}
        if not missing and not _aten_alias.is_ambiguous(program.graph):
            return program
        known = core_aten_decompositions()
        table = {target: known[target] for target in missing if target in known}
        with _aten_place.quiet():
            program = program.run_decompositions(table)
    for node in _untranslatable(program):
        layer, _ = _aten_place.of(node)
        raise ConvkitError(
            f"operator {node.target} in layer {layer or '(top)'!r} has no ONNX form{_aten_place.line(node)}",
            hint="write it with operators that have, or export the model to ONNX yourself",
        )
    return program


def _untranslatable(program: ExportedProgram) -> Iterator[fx.Node]:
    """Nodes that an input reaches and no function translates."""
    fed = set(program.graph_signature.user_inputs)
    reached: set[fx.Node] = set()
    for node in program.graph.nodes:
        if node.name in fed or any(source in reached for source in node.all_input_nodes):
            reached.add(node)
        random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        used = node.op == "call_function" and (node in reached or random) and _makes_tensor(node)
        if used and node.target is not operator.getitem and _aten.find(node.target) is None:
            yield node


def _makes_tensor(node: fx.Node) -> bool:
    """Sizes are computed where they are needed; assertions about them are not part of a Model."""
    if isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001 - no public name
        returns = node.target._schema.returns  # noqa: SLF001 - no public name
        return any("Tensor" in str(result.type) for result in returns)
    return not isinstance(node.meta.get("val"), int | float | bool | torch.SymInt | torch.SymFloat | torch.SymBool)


def _placeholders(
    program: ExportedProgram, builder: Builder, environment: _aten.Environment, inputs: Sequence[str]
) -> dict[str, fx.Node]:
    """Parameters, buffers and constants as Constants; the user's inputs as placeholders, by name."""
    kinds = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    names = iter(inputs)
    fed: dict[str, fx.Node] = {}
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        spec = kinds[node.name]
        if spec.kind is graph_signature.InputKind.USER_INPUT:
            name = next(names)
            if not isinstance(node.meta.get("val"), Tensor):
                raise ConvkitError(f"input {name!r} is no tensor", hint="wrap the model so that it takes tensors only")
            environment[node] = fed[name] = builder.input(name, node.meta["val"])
        else:
            environment[node] = Constant(str(spec.target), _tensor(program, str(spec.target)))
    return fed


def _tensor(program: ExportedProgram, name: str) -> Tensor:
    held = program.state_dict.get(name, program.constants.get(name))
    if not isinstance(held, Tensor):
        raise ConvkitError(f"{name!r} in the program is no tensor", hint="convkit runs networks of tensors only")
    return held


def _write(builder: Builder, node: fx.Node, environment: _aten.Environment, owners: Mapping[str, str] | None) -> None:
    if not _makes_tensor(node):
        environment[node] = node.meta.get("val")
        return
    if node.target is operator.getitem:
        environment[node] = _pick(node, environment)
        return
    layer, label = _aten_place.of(node)
    builder.begin(node, layer, label, membership.tags(_aten_place.stack(node), owners))
    try:
        result = _aten.translate(builder, node, environment)
    except ConvkitError as error:
        raise ConvkitError(f"{error.message}{_aten_place.line(node)}", hint=error.hint) from error
    builder.finish(result)
    environment[node] = result


def _pick(node: fx.Node, environment: _aten.Environment) -> Any:  # noqa: ANN401 - an operand, or several
    several, index = node.args
    results = environment[several]  # type: ignore[index]
    if index >= len(results) and not node.users:  # type: ignore[operator]
        return None
    if index >= len(results):  # type: ignore[operator]
        raise ConvkitError(f"output {index} of {several} is not kept{_aten_place.line(node)}")
    return results[index]


def _output_names(program: ExportedProgram) -> list[str]:
    """`output`, `output_1` … by place, or the keys of a dict; what is no tensor is left out."""
    from torch.utils import _pytree

    spec = program.call_spec.out_spec
    tree = _pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    named, _ = _pytree.tree_flatten_with_path(tree)
    tensors = [isinstance(made, fx.Node) for made in _user_outputs(program)]
    return [_output_name(path) for path, i in named if tensors[i]]


def _output_name(path: Sequence[Any]) -> str:
    keys = [getattr(key, "key", getattr(key, "name", getattr(key, "idx", 0))) for key in path]
    words = [str(key) for key in keys]
    if not keys or keys == [0]:
        return "output"
    return "_".join(["output", *words] if isinstance(keys[0], int) else words)


def _user_outputs(program: ExportedProgram) -> list[object]:
    """What the model returns; a functional program returns the buffers it writes too."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    specs = program.graph_signature.output_specs
    pairs = zip(output.args[0], specs, strict=True)
    return [made for made, spec in pairs if spec.kind is graph_signature.OutputKind.USER_OUTPUT]


def _results(
    program: ExportedProgram, builder: Builder, environment: _aten.Environment, names: Sequence[str]
) -> list[fx.Node]:
    """The output nodes, each under its output's name; an Identity where a node is no result or is one already."""
    results: list[fx.Node] = []
    made = [environment[source] for source in _user_outputs(program) if isinstance(source, fx.Node)]
    builder.layer = ""
    for name, operand in zip(names, made, strict=True):
        results.append(_result(builder, operand, results))
        results[-1].meta["value"] = name
    return results


def _result(builder: Builder, operand: Operand, earlier: Sequence[fx.Node]) -> fx.Node:
    node = builder.node(operand)
    if node.op in {"call_module", "call_function"} and node not in earlier:
        return node
    copy = builder.op("Identity", node)
    copy.meta["val"] = node.meta["val"]
    return copy

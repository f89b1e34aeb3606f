"""Lockstep: one graph run on all batches at once, node by node, so that what it holds can change on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress.method import Batches


class Lockstep:
    """Runs of `graph`, one a batch, that advance together. Nodes are given in the graph's order, each once."""

    def __init__(self, graph: fx.GraphModule, inputs: Sequence[str], samples: Batches) -> None:
        self._runs = [fx.Interpreter(graph) for _ in samples]
        for run, batch in zip(self._runs, samples, strict=True):
            run.args_iter = iter([batch[name] for name in inputs])

    def values(self, node: fx.Node) -> list[Any]:
        """What `node` made on each batch; it was advanced to, and somebody is still to read it."""
        return [run.env[node] for run in self._runs]

    def read(self, node: fx.Node) -> list[Tensor]:
        """What `node`, the next, reads first on each batch."""
        return self.values(node.all_input_nodes[0])

    def advance(self, node: fx.Node) -> list[Any]:
        """Run `node` on each batch; what nobody reads any more is freed."""
        values = [run.run_node(node) for run in self._runs]
        for run, value in zip(self._runs, values, strict=True):
            run.env[node] = value
            for done in run.user_to_last_uses.get(node, []):
                del run.env[done]
        return values

    def replace(self, node: fx.Node, values: list[Any]) -> list[Any]:
        """`values` in place of what `node`, the last that was advanced to, made on each batch."""
        for run, value in zip(self._runs, values, strict=True):
            run.env[node] = value
        return values

    def peek(self, node: fx.Node) -> list[Any]:
        """What `node`, the next, would make on each batch."""
        return [run.run_node(node) for run in self._runs]

    def renew(self, node: fx.Node) -> None:
        """Compute `node`, which hangs on constants alone, again: they changed."""
        value = constant(node)
        for run in self._runs:
            run.env[node] = value


def constant(node: fx.Node) -> Any:  # noqa: ANN401 - an operator's result
    """The value of a node that hangs on constants alone."""
    held = graphs.constant(node)
    if held is not None:
        return held
    arguments = fx.map_arg(node.args, constant)
    result: Tensor = node.target(*arguments, **node.kwargs)  # type: ignore[operator]
    return result

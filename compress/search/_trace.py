"""One batch through the float network: every value, and the gradients at every site at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from convkit.compress.method import Samples
from convkit.compress.model import Model
from convkit.compress.option import FLOAT, Option
from convkit.compress.search.alone import Site, Values
from convkit.compress.search.loss import Loss

_Place = fx.Node | tuple[fx.Node, fx.Node]
"""A tensor, or the edge from one to a reader of it."""
_By = Mapping[_Place, Tensor]


class Run(fx.Interpreter):
    """Keeps every value. An edge that is watched is a view of its own, which a gradient reaches."""

    def __init__(
        self, graph: fx.GraphModule, wanted: Iterable[fx.Node] = (), edges: Iterable[tuple[fx.Node, fx.Node]] = ()
    ) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self._wanted, self._edges = set(wanted), set(edges)
        self.views: dict[_Place, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's own signature
        """The node's value, made from views where its edges are watched."""
        whole = {source: self.env[source] for source in n.all_input_nodes if (source, n) in self._edges}
        for source, value in whole.items():
            self.views[source, n] = self.env[source] = _reached(value.view_as(value))
        result = super().run_node(n)
        self.env.update(whole)
        return _reached(result) if n in self._wanted else result


def _reached(value: Tensor) -> Tensor:
    """`value` as one that gradients reach."""
    return value if value.requires_grad else value.detach().requires_grad_()


def run(model: Model, batch: Samples) -> Values:
    """What every node makes of `batch`; only the output node is left out."""
    every = Run(model.graph)
    every.run(*(batch[spec.name] for spec in model.inputs))
    return every.env


def outputs(model: Model, values: Values) -> list[Tensor]:
    """The float outputs of the network among `values`."""
    (end,) = (node for node in model.graph.graph.nodes if node.op == "output")
    results: list[Tensor] = [values[result] for result in end.all_input_nodes]
    return [result for result in results if result.is_floating_point()]


class Trace:
    """The float run of a batch, its values, and the gradients of `loss` at every place that a site's error enters."""

    def __init__(self, model: Model, sites: Iterable[Site], batch: Samples, loss: Loss) -> None:
        found = list(sites)
        ends = {site.end for site in found if site.makes_tensor}
        edges = {edge for site in found for tensor in site.arguments.values() for edge in _edges(site, tensor)}
        traced = Run(model.graph, ends, edges)
        with torch.enable_grad():
            traced.run(*(batch[spec.name] for spec in model.inputs))
            self._features = loss.features(outputs(model, traced.env))
        self._places: _By = {**{end: traced.env[end] for end in ends}, **traced.views}
        self._values = {node: v.detach() if isinstance(v, Tensor) else v for node, v in traced.env.items()}
        self._loss, self._probed = loss, list[_By]()
        self._slope: _By | None = None

    def probe(self, at: int, probes: int, generator: torch.Generator) -> None:
        """Ask for the gradients of `probes` random probes, and of the slope if there is one; the graph is done then."""
        exact = [u.detach() for u in self._features]
        self._probed = [self._back(self._loss.probe(exact, at, generator)) for _ in range(probes)]
        slope = self._loss.slope(exact, at)
        self._slope = None if slope is None else self._back(slope)
        self._features, self._places = [], {}

    def _back(self, seeds: Sequence[Tensor]) -> _By:
        reached = [(u, v) for u, v in zip(self._features, seeds, strict=True) if u.requires_grad]
        if not reached or not self._places:
            return {}
        ends, vectors = zip(*reached, strict=True)
        found = torch.autograd.grad(ends, list(self._places.values()), vectors, retain_graph=True, allow_unused=True)
        return {place: gradient for place, gradient in zip(self._places, found, strict=True) if gradient is not None}

    @torch.no_grad()
    def costs(self, site: Site, options: Sequence[Option]) -> Iterator[tuple[Option, float]]:
        """The loss of `site` on this batch in each of `options`."""
        for activation in dict.fromkeys(option.activation for option in options):
            read = site.read(self._values, activation)
            shared = self._products(dict(self._shared(site, read)))
            for option in options:
                if option.activation == activation and option != FLOAT:
                    yield option, self._cost(shared + self._products(self._own(site, option, read)))

    def _shared(self, site: Site, read: Values) -> Iterator[tuple[_Place, Tensor]]:
        """Errors of the tensors that others read too."""
        for tensor in dict.fromkeys(t for t in site.arguments.values() if t in read):
            error = read[tensor] - self._values[tensor]
            yield from ((edge, error) for edge in _edges(site, tensor))

    def _own(self, site: Site, option: Option, read: Values) -> _By:
        """The error at the end of the kernel."""
        if not site.makes_tensor:
            return {}
        return {site.end: site.run(self._values, option, read) - self._values[site.end]}

    def _products(self, errors: _By) -> Tensor:
        """gᵀδ over all places, of each probe and then of the slope, float64 [gradients]."""
        gradients = [*self._probed, *([] if self._slope is None else [self._slope])]
        return torch.tensor([_product(one, errors) for one in gradients], dtype=torch.float64)

    def _cost(self, products: Tensor) -> float:
        curved = products[: len(self._probed)].square().mean() if self._probed else torch.zeros(())
        return float(curved if self._slope is None else curved + products[-1])


def _edges(site: Site, tensor: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    return [(tensor, reader) for reader in site.others(tensor)]


def _product(gradients: _By, errors: _By) -> float:
    return sum(float(torch.dot(e.flatten(), gradients[p].flatten())) for p, e in errors.items() if p in gradients)

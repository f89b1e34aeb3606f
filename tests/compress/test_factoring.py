"""Convolutions of a network in forms: the graph that is made, what layers read, and what changes of weights cost."""

import torch

from convkit.compress import factoring, parts
from convkit.compress import form as forms
from convkit.compress.apply import prepare
from convkit.compress.model import clone
from tests.compress.network import EXACT, batches, residual


def test_a_network_in_forms_at_full_rank_is_the_network() -> None:
    given = residual().model("scores")
    model = prepare(given, EXACT)
    samples = batches(given)[0]
    wanted = model(samples)["scores"]
    for name in parts.names(forms.FOLDER):
        form = parts.load(forms.FOLDER, name)
        known = {key: conv for key, conv in factoring.plain(model.graph).items() if form.fits(conv)}
        full = {key: str(forms.Chosen(name, form.full(conv))) for key, conv in known.items()}
        found = factoring.chains(model.graph, ["x"], [samples], {key: (text,) for key, text in full.items()})
        chains = {key: found[key][text] for key, text in full.items()}
        made = model.replace(graph=factoring.put(clone(model.graph), chains))
        assert chains
        targets = {str(node.target) for node in made.graph.graph.nodes if node.op == "call_module"}
        assert {f"{key}.{place}" for key, chain in chains.items() for place in range(len(chain.pieces))} <= targets
        assert (made(samples)["scores"] - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_moments_are_those_of_what_a_layer_reads() -> None:
    """So that the error of another weight is known beforehand."""
    given = residual().model("scores")
    model, samples = prepare(given, EXACT), batches(given)
    known = factoring.plain(model.graph)
    found = factoring.reads(model.graph, ["x"], samples, known)
    assert found.keys() == known.keys()
    first = next(iter(known))
    conv = known[first]
    change = torch.randn_like(conv.weight).double()
    x = torch.cat([batch["x"] for batch in samples]).double()
    made = torch.nn.functional.conv2d(x, change, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    rows = change.reshape(conv.groups, -1, change[0].numel())
    foretold = ((rows @ found[first].square) * rows).sum()
    torch.testing.assert_close(foretold, made.square().sum(1).mean(), rtol=1e-4, atol=0)

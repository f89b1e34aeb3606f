"""Blocks: cut where one tensor is alive, closed, together the whole network."""

import pytest

from convkit.compress import blocks
from convkit.compress import graph as graphs
from convkit.compress.apply import prepare
from tests.compress.network import EXACT, Net, residual
from tests.compress.test_learned_round import NETS


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("most", [1, 3, 100])
def test_blocks_are_closed_and_hold_every_layer(name: str, most: int) -> None:
    model = prepare(NETS[name]().model("scores"), EXACT)
    found = blocks.of(model.graph, most)
    layers = [node for block in found for node in block.nodes if node.op == "call_module"]
    assert layers == [node for node in graphs.computes(model.graph) if node.op == "call_module"]
    varying = blocks.varying(model.graph)
    for block in found:
        assert blocks.between(varying, block.start, block.end) == block.nodes
        inside = {*block.nodes}
        assert all(user in inside or user.op == "output" for node in block.nodes[:-1] for user in node.users)


def test_a_residual_block_stays_whole() -> None:
    model = prepare(residual().model("scores"), EXACT)
    sizes = [block.layers for block in blocks.of(model.graph, 1)]
    assert sizes == [1, 3, 1]
    assert [block.layers for block in blocks.of(model.graph, 4)] == [4, 1]


def test_what_reads_a_tensor_from_before_is_no_section() -> None:
    net = Net()
    first = net.op("Relu", net.conv("x", 4, 3))
    second = net.op("Relu", net.conv(first, 4, 3))
    net.head(net.op("Add", second, first))
    nodes = blocks.varying(prepare(net.model("scores"), EXACT).graph)
    by_name = {graphs.value(node): node for node in nodes}
    assert blocks.between(nodes, by_name[second], by_name["scores"]) is None


def test_a_tensor_called_output_is_not_taken_for_the_end_of_the_graph() -> None:
    net = Net()
    net.op("Relu", net.conv("x", 4, 3), name="output")
    varying = blocks.varying(prepare(net.model("output"), EXACT).graph)
    assert [node for node in varying if graphs.value(node) == "output"] == varying[-1:]
    assert "output" not in {node.op for node in varying}

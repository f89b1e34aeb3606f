"""The way from a network's own widths to the least."""

import itertools

import pytest

from convkit.compress.apply import prepare
from convkit.compress.model import clone, with_shapes
from convkit.compress.shrinking import cutting, levels, shrink
from convkit.compress.shrinking.coupling import coupling
from tests.compress.network import Net, residual

LAYERS = 1.0


def _way(step: int = 4) -> tuple[object, list[levels.Level]]:
    model = prepare(residual().model("scores"), ("simplify", "fold_batch_norm"))
    coupled = coupling(model.graph)
    worth = {root: float(place + 1) for place, root in enumerate(root for f in coupled.families for root in f.classes)}
    names = {node.target for node in model.graph.graph.nodes if node.op == "call_module"}
    times = {str(name): [(0.5, 0.5), (1.0, 1.0)] for name in names}
    return model, list(levels.levels(model.graph, coupled, worth, times, float(len(times)), step))


def test_it_gets_narrower_and_faster_and_loses_more() -> None:
    _, way = _way()
    assert not way[0].gone
    assert len(way) > 3
    for before, after in itertools.pairwise(way):
        assert before.gone < after.gone
        assert before.seconds > after.seconds
        assert before.loss < after.loss


def test_widths_are_multiples_of_the_step() -> None:
    model, way = _way()
    coupled = coupling(model.graph)  # type: ignore[attr-defined]
    for level in way:
        widths = shrink.widths(coupled, level.gone)
        assert all(width % 4 == 0 for width in widths.values())
    assert shrink.widths(coupled, way[-1].gone) == {family.name: 4 for family in coupled.families}


def test_parts_are_those_of_the_products_that_are_left() -> None:
    from convkit.compress.analysis import analyse

    model, way = _way()
    before = {layer.name: layer.macs for layer in analyse(model).layers}  # type: ignore[arg-type]
    for level in way[1::3]:
        own = clone(model.graph)  # type: ignore[attr-defined]
        coupled = coupling(own)
        parts = levels.parts(own, coupled, level.gone)
        narrow = with_shapes(model.replace(graph=cutting.cut(own, coupled, level.gone)))  # type: ignore[attr-defined]
        for layer in analyse(narrow).layers:
            if layer.macs:
                assert abs(layer.macs / before[layer.name] - parts[layer.name]) < 1e-9


def test_channels_are_valued_again_as_time_falls() -> None:
    """What would have gone next is dear then, and another goes."""
    model, once = _way(2)
    coupled = coupling(model.graph)  # type: ignore[attr-defined]
    cheap = {root: float(place + 1) for place, root in enumerate(root for f in coupled.families for root in f.classes)}
    would = {before.gone: after.gone - before.gone for before, after in itertools.pairwise(once)}
    asked: list[frozenset[int]] = []

    def again(gone: frozenset[int]) -> dict[int, float]:
        asked.append(gone)
        return {root: 1e9 if root in would.get(gone, ()) else value for root, value in cheap.items()}

    times = {str(n.target): [(0.5, 0.5), (1.0, 1.0)] for n in model.graph.graph.nodes if n.op == "call_module"}  # type: ignore[attr-defined]
    way = list(levels.levels(model.graph, coupled, cheap, times, float(len(times)), 2, again))  # type: ignore[attr-defined]
    seconds = {level.gone: level.seconds for level in way}
    for before, after in itertools.pairwise([way[0].gone, *asked]):
        assert seconds[after] <= 0.9 * seconds[before]
    turned = next(place for place, level in enumerate(way) if level.gone == asked[0])
    assert way[: turned + 1] == once[: turned + 1]
    assert not (way[turned + 1].gone - asked[0]) & would[asked[0]]


def test_classes_of_the_network_that_is_left_are_known_by_their_own_names() -> None:
    model, way = _way()
    coupled = coupling(model.graph)  # type: ignore[attr-defined]
    known = {root: -1.0 for family in coupled.families for root in family.classes}
    gone = way[-1].gone
    own = clone(model.graph)  # type: ignore[attr-defined]
    cut = with_shapes(model.replace(graph=cutting.cut(own, coupling(own), gone)))  # type: ignore[attr-defined]
    narrow = coupling(cut.graph)
    fresh = {root: float(place) for f in narrow.families for place, root in enumerate(f.classes)}
    found = levels.renamed(coupled, gone, narrow, fresh, known)
    for family in coupled.families:
        left = [root for root in family.classes if root not in gone]
        assert [found[root] for root in left] == [float(place) for place in range(len(left))]
    assert all(found[root] == -1.0 for root in gone)


def test_times_between_what_was_measured() -> None:
    times = {"a": [(0.25, 1.0), (0.5, 2.0), (1.0, 8.0)]}
    assert levels.seconds(times, "a", 0.75) == 5.0
    assert levels.seconds(times, "a", 0.125) == 0.5
    assert levels.seconds(times, "a", 1.0) == 8.0
    assert levels.seconds(times, "b", 0.5) == 0.0


def test_every_tensor_keeps_its_worthiest_channel() -> None:
    model, _ = _way()
    coupled = coupling(model.graph)  # type: ignore[attr-defined]
    family = coupled.families[0]
    worth = {root: float(root) for root in family.classes}
    left = levels.never_empty(coupled, frozenset(family.classes), worth)
    assert set(family.classes) - left == {max(family.classes)}


@pytest.mark.parametrize(
    ("channels", "share", "left"),
    [(8, 0.25, 8), (10, 0.25, 8), (12, 0.25, 8), (16, 0.25, 8), (4, 0.5, 2), (6, 0.5, 3)],
)
def test_every_family_keeps_a_step_of_channels_where_it_has_one_and_else_its_share(
    channels: int, share: float, left: int
) -> None:
    net = Net()
    coupled = coupling(net.model(net.conv(net.conv("x", channels), 2)).graph)
    (family,) = coupled.families
    worth = {root: float(place) for place, root in enumerate(family.classes)}
    gone = levels.uniform(coupled, worth, share, step=8)
    assert set(family.classes) - gone == set(family.classes[-left:])

"""A family: an elastic network that was trained once, as a folder, and what it takes to train it on and to read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.compress import record
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from torch import Tensor

    from convkit.compress.model import Model
    from convkit.compress.shrinking.coupling import Coupling
    from convkit.compress.training.choice import Space
    from convkit.compress.training.elastic import Elastic

SCHEMA_VERSION = 1
FILE, WEIGHTS, NETWORK = "family.json", "family.safetensors", "network.onnx"
KINDS = ("width", "depth", "kernel")
SHARES = (0.75, 0.5)
"""Of the channels of a family, in its narrower members."""


@dataclass(frozen=True, slots=True)
class Asked:
    """In what members differ (`kinds`), and what their widths are multiples of."""

    kinds: tuple[str, ...]
    step: int = 8


def is_one(path: str) -> bool:
    """Whether `path` is a folder that holds a family."""
    try:
        return (Path(path) / FILE).is_file()
    except OSError:  # longer than names may be: no path at all
        return False


def parse(text: str) -> tuple[str, ...]:
    """`width,depth,kernel`, or some of them."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    wrong = next((name for name in names if name not in KINDS), None)
    if wrong is not None:
        raise ConvkitError(f"networks are not elastic in {wrong!r}", hint=f"there is: {', '.join(KINDS)}")
    return names


def made(model: Model, asked: Asked) -> Elastic:
    """The elastic network of `model`, which has shapes. Raises ConvkitError where all its members are the network."""
    from convkit.compress.training import choice, elastic

    kinds = asked.kinds
    shares = SHARES if "width" in kinds else ()
    found = choice.space(model.graph, shares, asked.step, depth="depth" in kinds, kernel="kernel" in kinds)
    if found.least == found.whole:
        raise ConvkitError(
            f"{model.name} has nothing elastic in {', '.join(kinds)}",
            hint="widths need layers behind each other, depth residual blocks of one width, kernels 5 and more",
        )
    model.graph.train()
    return elastic.Elastic(model.graph, found)


def rank(elastic: Elastic, model: Model, samples: Sequence[Mapping[str, Tensor]]) -> dict[str, list[int]]:
    """Rank channels by what they are worth now; by family, its classes from the worthiest on."""
    from convkit.compress.shrinking.coupling import coupling
    from convkit.compress.shrinking.worth import worth

    model.graph.eval()
    coupled = coupling(model.graph)
    order = _order(coupled, worth(model, coupled, list(samples)))
    model.graph.train()
    reorder(elastic, order)
    return order


def _order(coupled: Coupling, worth: Mapping[int, float]) -> dict[str, list[int]]:
    return {
        family.name: sorted(range(len(family.classes)), key=lambda at: (-worth[family.classes[at]], -at))
        for family in coupled.families
    }


def reorder(elastic: Elastic, order: Mapping[str, Sequence[int]]) -> None:
    """Rank channels as they are written down."""
    from convkit.compress.shrinking.coupling import coupling

    coupled = coupling(elastic.graph)
    found = {
        family.classes[at]: -float(place)
        for family in coupled.families
        for place, at in enumerate(order.get(family.name, range(len(family.classes))))
    }
    elastic.reorder(found)


def write(folder: Path, network: bytes, elastic: Elastic, asked: Asked, told: Mapping[str, Any]) -> None:
    """The family's files into `folder`; `network`: the ONNX file that `elastic` was made of."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in elastic.state_dict().items()}
    record.write_bytes(folder / NETWORK, network)
    record.write_bytes(folder / WEIGHTS, save(tensors))
    text = {
        "schema_version": SCHEMA_VERSION,
        "elastic": {"kinds": list(asked.kinds), "step": asked.step},
        **told,
    }
    record.write_json(folder / FILE, text)


@dataclass(frozen=True, slots=True)
class Family:
    """What stands in the folder `path`: its network, elastic, and what was told of its training."""

    path: str
    model: Model
    elastic: Elastic
    told: Mapping[str, Any]

    @property
    def space(self) -> Space:
        """What its members may be."""
        return self.elastic.space


def read(path: str) -> Family:
    """The family in a folder. Raises ConvkitError for what is none, or whose files do not belong together."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from convkit.compress import model as models
    from convkit.compress.model import ModelRef

    file = Path(path) / FILE
    try:
        text = json.loads(file.read_text(encoding="utf-8"))
        if text["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"its schema_version is {text['schema_version']}, this convkit reads {SCHEMA_VERSION}")
        asked = Asked(tuple(text["elastic"]["kinds"]), int(text["elastic"]["step"]))
        tensors, order = load_file(str(Path(path) / WEIGHTS)), dict(text["order"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ConvkitError(f"{path} holds no family: {error}", hint="`convkit train --elastic` writes one") from error
    loaded = models.with_shapes(models.load(ModelRef(str(Path(path) / NETWORK))))
    digest = record.digest_json([loaded.digest, text["elastic"], order, record.digest_file(Path(path) / WEIGHTS)])
    model = loaded.replace(digest=digest)
    elastic = made(model, asked)
    known = {name: tensor.shape for name, tensor in elastic.state_dict().items()}
    if known != {name: tensor.shape for name, tensor in tensors.items()}:
        raise ConvkitError(f"{NETWORK} in {path} is another than its weights are of", hint="train it again")
    elastic.load_state_dict(tensors)
    reorder(elastic, order)
    model.graph.eval()
    return Family(path, model, elastic, text)


def network(family: Family, graph: Any) -> Model:  # noqa: ANN401 - a GraphModule
    """A member's `graph` as a Model in evaluation."""
    graph.eval()
    return replace(family.model, graph=graph)

"""Networks with a layer that is in no standard, and plugins that fail."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from tests.compress.network import Net

TWICE = Path(__file__).with_name("twice.py")
DOMAIN = "convkit"


def network(*, body: bool = False, **attributes: object) -> onnx.ModelProto:
    """A convolution, `convkit::Twice` called `own`, and a convolution behind it; `body`: of Twice, in an Add."""
    net = Net("N", 4, 8, 8)
    first = net.conv("x", 4, 3)
    last = net.conv(first, 4, 3)
    model = net.proto(last)
    model.graph.node.insert(1, helper.make_node("Twice", [first], ["own"], "own", domain=DOMAIN, **attributes))
    model.graph.node[2].input[0] = "own"
    model.opset_import.append(helper.make_opsetid(DOMAIN, 3))
    value = helper.make_tensor_value_info(last, TensorProto.FLOAT, ["N", 4, 8, 8])
    del model.graph.output[:], model.graph.value_info[:]
    model.graph.output.append(value)
    if body:
        add = helper.make_node("Add", ["a", "a"], ["b"], "sum")
        model.functions.append(helper.make_function(DOMAIN, "Twice", ["a"], ["b"], [add], model.opset_import[:1]))
    return model


def saved(folder: Path, *, body: bool = False, **attributes: object) -> Path:
    """`network` as a file in `folder`."""
    onnx.save(network(body=body, **attributes), folder / "net.onnx")
    return folder / "net.onnx"


def failing(folder: Path, method: str) -> tuple[Path, int]:
    """Twice with a method that raises in its first line, and which line of the file that is."""
    lines = TWICE.read_text().splitlines()
    line = next(place for place, text in enumerate(lines) if f"def {method}(" in text) + 1
    lines.insert(line, "            raise ValueError('thrice')")
    (folder / "failing.py").write_text("\n".join(lines) + "\n")
    return folder / "failing.py", line + 1


def without(folder: Path, method: str) -> Path:
    """Twice without a method that it should have."""
    (folder / "lacking.py").write_text(TWICE.read_text().replace(f"def {method}(", "def other("))
    return folder / "lacking.py"

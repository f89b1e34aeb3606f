"""Every novel convolution loads its authors' own state dict, strictly, and computes what their code computed."""

from pathlib import Path

import pytest

from convkit.compress import parts
from convkit.compress.conv import FOLDER as CONVS
from tests.compress.convs import recorded

CLOSE = 1e-5
NONE = ("ela", "late_fusion")
"""Those of which no authors' code was ever published: others' stands for it."""
RECORDS = sorted(path.name.removesuffix(".safetensors") for path in recorded.FOLDER.glob("*.safetensors"))


@pytest.mark.parametrize("name", RECORDS)
def test_the_authors_weights_load_and_give_what_they_gave(name: str) -> None:
    found = recorded.read(name)
    made = found.run()
    assert len(made) == len(found.outputs)
    for got, wanted in zip(made, found.outputs, strict=True):
        assert got.shape == wanted.shape
        assert float((got - wanted).abs().max() / wanted.abs().max()) <= CLOSE, found.source


@pytest.mark.parametrize("name", parts.names(CONVS))
def test_each_was_run_beside_the_authors_own(name: str) -> None:
    own = [record for record in RECORDS if record.split(".")[0] == name]
    assert own
    assert all("independent" in recorded.read(record).source for record in own) == (name in NONE)


def test_the_page_says_whose_weights_load(request: pytest.FixtureRequest) -> None:
    page = Path(__file__).parents[3] / "docs" / "convs.md"
    before, rest = page.read_text().split("<!-- weights -->\n")
    listed, after = rest.split("<!-- /weights -->")
    lines = ["| conv | layers | code that they were run beside |", "|---|---|---|"]
    for name in parts.names(CONVS):
        found = [recorded.read(record) for record in RECORDS if record.split(".")[0] == name]
        layers = ", ".join(sorted({f"`{type(one.layer).__name__}`" for one in found}))
        code = ", ".join(sorted({_repository(one.source) for one in found}))
        others = " (others': the authors published none)" if name in NONE else ""
        lines.append(f"| `{name}` | {layers} | {code}{others} |")
    wanted = "\n".join([*lines, ""])
    if request.config.getoption("--regenerate"):
        page.write_text(f"{before}<!-- weights -->\n{wanted}<!-- /weights -->{after}")
        return
    assert listed == wanted


def _repository(source: str) -> str:
    """`owner/name@version`, or a package and its version."""
    if source.startswith("(independent)"):
        return "a re-implementation"
    first, second, *_ = [*source.split(), ""]
    owner, at, version = first.partition("@")
    return f"{owner}@{version[:7]}" if at else f"{first} {second}"

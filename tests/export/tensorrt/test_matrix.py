"""A sample of the cells of TensorRT's matrix: what docs/tensorrt.md says of them is what an engine is built of now."""

from pathlib import Path

import pytest

from tests.bench import limits, matrix

PAGE = Path(__file__).parents[3] / "docs/tensorrt.md"
SAMPLE = {
    ("espcn", "fp8_e4m3"): (75, 89),
    ("espcn", "int8, fp16 mixed"): (89,),
    ("watch", "int8"): (75, 80),
    ("watch", "fp8, fp16 mixed"): (89,),
    ("volume", "fp16"): (75, 120),
    ("unet", "fp16"): (86,),
}
SHALLOW = ("espcn", "watch")
"""In deeper ones a code that the last bit of a sum flips moves so many behind it that two orders of the simulation's
own sums agree no better."""


def told(network: str, number: str) -> dict[int, str]:
    """What the page has for each compute capability."""
    lines = [
        line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith(f"| {network} | {number} |")
    ]
    (line,) = lines
    return dict(zip(matrix.SMS, line[2:], strict=False))


@pytest.mark.parametrize(("network", "number"), SAMPLE, ids=lambda word: word.replace(", ", "-").replace(" ", "-"))
def test_a_cell_is_what_the_page_says(network: str, number: str, tmp_path: Path) -> None:
    prepared, sample = matrix.network(network)
    file = matrix.written(prepared, number, sample, tmp_path)
    for sm in SAMPLE[network, number]:
        found = matrix.cell(network, number, sm, file, sample)
        assert found.holds
        assert found.words == told(network, number)[sm]
    if network in SHALLOW:
        assert matrix.agreement(file, sample) >= limits.AS_SIMULATED


def test_the_page_has_all_cells() -> None:
    for network in matrix.NETWORKS:
        for number in matrix.FORMATS:
            found = told(network, number)
            assert list(found) == list(matrix.SMS)
            assert not [words for words in found.values() if "FAILS" in words or "DEPART" in words]

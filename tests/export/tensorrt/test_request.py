"""What a build is asked for in trtexec's words."""

import pytest

from convkit.compress.errors import ConvkitError
from convkit.export.tensorrt.request import profile


def test_shapes_of_several_inputs() -> None:
    found = profile("a:1x3x8x8,b:1", "a:2x3x8x8,b:2", "a:4x3x8x8,b:4")
    assert found.least == {"a": (1, 3, 8, 8), "b": (1,)}
    assert found.usual == {"a": (2, 3, 8, 8), "b": (2,)}
    assert found.most == {"a": (4, 3, 8, 8), "b": (4,)}
    assert found.inputs == ("a", "b")


def test_a_name_may_have_colons_and_one_word_fixes_all_shapes() -> None:
    found = profile(None, "layer/x:0:1x3", None)
    assert found.least == found.usual == found.most == {"layer/x:0": (1, 3)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a:1x", None, None), "--min-shapes 'a:1x' is no shape"),
        ((None, "1x3", None), "--opt-shapes '1x3' is no shape"),
        ((None, "a:1,b:1", "a:2"), "input 'b' lacks a shape"),
        (("a:1x3", "a:1", "a:1"), "have different ranks: 1x3, 1, 1"),
        (("a:4", "a:2", "a:8"), "do not ascend: 4, 2, 8"),
    ],
)
def test_bad_words_are_one_line(words: tuple[str | None, str | None, str | None], message: str) -> None:
    with pytest.raises(ConvkitError, match=message):
        profile(*words)

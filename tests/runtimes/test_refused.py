"""What is said of an engine that TensorRT does not open; on a GPU it says so itself, here its words are recorded."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from convkit.runtimes._tensorrt import TensorRtSession
from convkit.runtimes.session import cuda

PROGRAM = "Cannot deserialize engine with lean runtime since IRuntime::getEngineHostCodeAllowed() is false."
OTHER = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead =="
    " kSERIALIZATION_VERSION failed. In deserialize at engine.cpp:1)"
)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """What the user is told where the package says `words`."""
    monkeypatch.setattr(cuda, "capability", lambda: 89)

    def told(words: str) -> str:
        session = TensorRtSession.__new__(TensorRtSession)
        session._name, session._path = "tensorrt_rtx", "engine.trt"
        session._log = SimpleNamespace(messages=[("ERROR", words), ("WARNING", "other")])  # type: ignore[assignment]
        return str(session._refused("it gave no reason"))

    return told


def test_an_engine_that_holds_a_program_is_told_of(refused: Callable[[str], str]) -> None:
    said = refused(PROGRAM)
    assert (
        "engine.trt: it holds a program of its own, of --version-compatible, and convkit runs none from a file" in said
    )
    assert "measure one that is built without that" in said
    assert "convkit export --sm" not in said


def test_another_is_to_be_built_here(refused: Callable[[str], str]) -> None:
    assert "build it with this version: convkit export NET --target trt-rtx --sm 89 -o OUT" in refused(OTHER)

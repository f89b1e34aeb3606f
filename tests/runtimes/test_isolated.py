"""An engine in a process of its own: same answers, and its death is one clear error."""

import os
import signal
from pathlib import Path

import ml_dtypes
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convkit.compress.errors import ConvkitError
from convkit.runtimes.session import Options, open_session, wire
from convkit.runtimes.session.isolated import IsolatedSession
from tests.runtimes import network

arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float16, np.int8, np.uint8, np.int64, np.bool_, ml_dtypes.bfloat16]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    elements=st.integers(0, 1),
)


@given(st.dictionaries(st.text(max_size=5), st.integers()), st.dictionaries(st.text(max_size=5), arrays, max_size=3))
def test_a_message_arrives_as_it_was_sent(fields: dict[str, int], sent: dict[str, np.ndarray]) -> None:
    read, write = os.pipe()
    with open(write, "wb") as writer, open(read, "rb") as reader:  # noqa: PTH123 - descriptors, no paths
        wire.send(writer, fields, sent)
        got_fields, got = wire.receive(reader)
    assert got_fields == fields
    assert list(got) == list(sent)
    for name, array in sent.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        assert got[name].tobytes() == array.tobytes()


def test_answers_are_those_of_a_session_here(tmp_path: Path) -> None:
    net, inputs = network.write(tmp_path / "net.onnx"), network.sample()
    here = open_session("onnxruntime", net)
    with IsolatedSession("onnxruntime", net) as there:
        assert there.inputs == here.inputs
        assert there.outputs == here.outputs
        np.testing.assert_array_equal(there.run(inputs)["scores"], here.run(inputs)["scores"])
        assert list(there.run(inputs, ["sum"])) == ["sum"]
        assert [node.operator for node in there.profile(inputs, 2)] == [n.operator for n in here.profile(inputs, 2)]


STARTING = """import subprocess
from torch import nn

def build():
    with open({pid!r}, "w") as file:
        file.write(str(subprocess.Popen(["sleep", "60"]).pid))
    return Net()

class Net(nn.Module):
    def forward(self, x):
        return x + 1
"""


def test_what_an_engine_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A builder, say, which would go on using the device."""
    (tmp_path / "starting.py").write_text(STARTING.format(pid=str(tmp_path / "pid")))
    monkeypatch.syspath_prepend(str(tmp_path))
    session = IsolatedSession("eager", "starting:build", Options(shapes={"x": (1, 3)}))
    started = psutil.Process(int((tmp_path / "pid").read_text()))
    assert started.is_running()
    session.close()
    assert psutil.wait_procs([started], timeout=10)[1] == []


def test_errors_cross_the_pipe(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(ConvkitError, match=r"broken\.onnx"):
        IsolatedSession("onnxruntime", str(tmp_path / "broken.onnx"))


def test_bugs_cross_the_pipe_with_their_traceback() -> None:
    with IsolatedSession("null", "1us") as session, pytest.raises(RuntimeError, match=r"KeyError.*'input'"):
        session.run({"other": np.zeros(1)})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_dead_engine_is_one_clear_error(number: signal.Signals) -> None:
    with IsolatedSession("null", "1us") as session:
        os.kill(session.process.pid, number)
        with pytest.raises(ConvkitError, match=rf"null on 1us crashed \({number.name}\)"):
            session.run({"input": np.zeros(1, np.float32)})


def test_an_engine_that_hangs_is_told() -> None:
    with IsolatedSession("null", "60s") as session:
        session.process._timeout = 0.1
        with pytest.raises(ConvkitError, match="did not answer"):
            session.run({"input": np.zeros(1, np.float32)})


def test_what_an_engine_prints_does_not_disturb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud.py").write_text(
        "import torch\n"
        "print('loud')\n"
        "class Loud(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.relu(x)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from convkit.runtimes.session import Options

    with IsolatedSession("eager", "loud:Loud", Options(shapes={"x": (1, 4)})) as session:
        name = session.inputs[0].name
        out = session.run({name: np.full((1, 4), -1, np.float32)})
        assert not next(iter(out.values())).any()

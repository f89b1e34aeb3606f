"""A recipe is checked in full before anything runs; what is wrong is one line that names the key."""

import datetime as dt
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from convkit.cli import journal, recipe
from convkit.cli.step import Step, parse, strings, words
from convkit.compress import parts
from convkit.compress.errors import ConvkitError
from tests.command_line import Convkit


def write(folder: Path, text: str) -> str:
    (folder / "recipe.yaml").write_text(text)
    return str(folder / "recipe.yaml")


@pytest.mark.parametrize("name", parts.names("recipes", ".yaml"))
def test_every_recipe_that_ships_is_right(name: str) -> None:
    wanted = recipe.load(name)
    assert wanted.about or parts.about("recipes", name, ".yaml")
    assert wanted.steps


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("steps: [lst]", "steps[0].command: 'lst' is not known; did you mean 'list'?"),
        ("steps: [run]", "steps[0].command: 'run' is not known"),
        ("steps: [{command: doctor, targt: x}]", "steps[0]: 'targt' is not known; did you mean 'target'?"),
        ("steps: [doctor]\ntargt: x", "recipe.yaml, line 2: 'targt' is not known; did you mean 'target'?"),
        ("modle: net.onnx\nsteps: [inspect]", "recipe.yaml, line 1: 'modle' is not known; did you mean 'model'?"),
        ("about: x\nstpes: [doctor]", "recipe.yaml, line 2: 'stpes' is not known; did you mean 'steps'?"),
        ("mo-dle: x\nsteps: [lst]", "recipe.yaml, line 1: 'mo_dle' is not known; did you mean 'model'?"),
        ("steps: [doctor]\nbudget: 3", "recipe.yaml, line 2: no step takes 'budget'"),
        ("steps: [doctor, doctor]", "steps[1].name 'doctor' is taken or no name"),
        ("steps: [{command: doctor, name: ../../etc}]", "steps[0].name '../../etc' is taken or no name"),
        (
            "steps: [list, {command: doctor, target: '${lst}'}]",
            "steps[1]: ${…}: 'lst' is not known; did you mean 'list'?",
        ),
        ("steps: [{command: list, kind: targts}]", "steps[0]: Invalid value for '[KIND]'"),
        ("steps: [{command: inspect, model: {pth: a}}]", "steps[0]: model: 'pth' is not known; did you mean 'path'?"),
        ("steps: [{command: inspect, model: net.onnx}]", "steps[0].model: there is no net.onnx"),
        ("model: net.onnx\nsteps: [inspect]", "steps[0].model: there is no net.onnx"),
        (
            "steps: [{command: inspect, model: {path: 'a:b', shape: 'x:int63:1x3'}}]",
            "shape 'x:int63:1x3': there is no element type 'int63'; there is: float16, float32,",
        ),
        ("steps: [{command: doctor, each: {target: []}}]", "steps[0].each holds no lists of values; give such as"),
        ("steps: [{command: doctor, target: trt, each: {target: [trt]}}]", "steps[0].each: 'target' is the step's own"),
        ("steps: [{command: doctor, each: {name: [a, b]}}]", "steps[0].each: 'name' is the step's own; give it once"),
        ("steps: [{comand: doctor}]", "steps[0] has no command, and 'comand' is not known; give `command: NAME`"),
        (
            "target: onnxruntime-cup\nsteps: [{command: bench, candidates: ['m:f']}]",
            "steps[0].target: no target is called 'onnxruntime-cup'; did you mean 'onnxruntime-cpu'?",
        ),
        ("steps: [{command: doctor, each: 3}]", "steps[0].each holds no keys and values"),
        ("steps: [{command: doctor, each: {targt: [x]}}]", "steps[0]: 'targt' is not known; did you mean 'target'?"),
        ("steps: [{command: doctor, each: {target: [trt, trt]}}]", "steps[0].name 'doctor-trt' is taken or no name"),
        ("steps: []", "steps is missing"),
        ("steps: [doctor]\nsteps: [inspect]", "'steps' is there twice"),
        ("about: nothing", "steps is missing"),
        ("[1, 2]", "holds no keys and values"),
        ("steps: [3]", "steps[0] holds no keys and values"),
        ("steps: [doctor", "is no recipe: "),
        ("!!python/object/apply:os.system [ls]", "is no recipe: "),
        ("data: 3\nsteps: [doctor]", "data holds no keys and values"),
        ("data: {calibration: 3}\nsteps: [doctor]", "data.calibration holds no keys and values"),
    ],
)
def test_a_wrong_recipe_is_one_line_and_exit_2(convkit: Convkit, tmp_path: Path, text: str, line: str) -> None:
    result = convkit("run", write(tmp_path, text), "-o", str(tmp_path / "out"))
    assert (result.code, result.out) == (2, "")
    assert line in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_is_not_there(convkit: Convkit, tmp_path: Path) -> None:
    result = convkit("run", str(tmp_path / "no.yaml"), "-o", str(tmp_path / "out"))
    assert result.code == 2
    assert "No such file or directory" in result.err


def test_the_last_step_is_checked_before_the_first_runs(convkit: Convkit, tmp_path: Path) -> None:
    file = write(tmp_path, "steps: [list, {command: doctor, jsn: true}]")
    result = convkit("run", file, "-o", str(tmp_path / "out"))
    assert result.code == 2
    assert "steps[1]: 'jsn'" in result.err
    assert not (tmp_path / "out").exists()


def test_files_are_looked_for_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    (tmp_path / "photos").mkdir()
    text = "model: net.onnx\ndata: {few: {path: photos}}\nsteps: [inspect, {command: quantize, data: %s}]"
    for data, found in (("photos", str(tmp_path / "photos")), ("few", {"path": str(tmp_path / "photos")})):
        wanted = recipe.load(write(tmp_path, text % data))
        assert wanted.steps[0].settings["model"] == str(tmp_path / "net.onnx")
        assert wanted.steps[1].settings["data"] == found


@pytest.mark.parametrize(
    ("step", "key"),
    [
        ("{command: train, data: m:f, validation: held}", "validation"),
        ("{command: train, data: m:f, validation: {path: held}}", "validation"),
        ("{command: distill, data: m:f, teacher: held}", "teacher"),
        ("{command: pack, paths: [held]}", "paths"),
        ("{command: pack, paths: ['${list}'], wheels: held}", "wheels"),
    ],
)
def test_a_folder_by_its_bare_name_is_looked_for_beside_the_recipe(tmp_path: Path, step: str, key: str) -> None:
    (tmp_path / "held").mkdir()
    (tmp_path / "net.onnx").write_bytes(b"")
    (_, made) = recipe.load(write(tmp_path, f"model: net.onnx\nsteps: [list, {step}]")).steps
    assert list(strings(made.settings[key])) == [str(tmp_path / "held")]


def test_a_file_of_data_is_read_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the run is started."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "net.onnx").write_bytes(b"")
    (tmp_path / "d.yaml").write_text("{path: photos, limit: 3}")
    (step,) = recipe.load(write(tmp_path, "steps: [{command: quantize, model: net.onnx, data: d.yaml}]")).steps
    assert step.settings["data"] == str(tmp_path / "d.yaml")


def test_candidates_of_a_bench_are_files_too(tmp_path: Path) -> None:
    for name in ("net.onnx", "plan.yaml"):
        (tmp_path / name).write_bytes(b"")
    names = "'onnxruntime:net.onnx', 'onnxruntime,plan=plan.yaml,threads=1:net.onnx'"
    text = f"steps: [{{command: bench, candidates: [{names}]}}]"
    (step,) = recipe.load(write(tmp_path, text)).steps
    plan = f"onnxruntime,plan={tmp_path}/plan.yaml,threads=1:{tmp_path}/net.onnx"
    assert step.settings["candidates"] == [f"onnxruntime:{tmp_path}/net.onnx", plan]


@pytest.mark.parametrize("place", ["net.onnx", "${made}/net.onnx", "onnxruntime:${made}/net.onnx"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_step_is_of_what_its_files_hold(
    place: str, relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the output folder is spelled."""
    monkeypatch.chdir(tmp_path)
    folder = Path("out/made") if relative else tmp_path / "out" / "made"
    text = place if "$" in place else str(tmp_path / "out" / "made" / place)
    found = []
    for content in ("one", "other", "one"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "net.onnx").write_text(content)
        found.append(journal.digest(Step("bench", "bench", {"candidates": [text]}), {"made": folder}))
    assert found[0] == found[2] != found[1]


def test_settings_for_all_steps_go_where_they_are_known(tmp_path: Path) -> None:
    wanted = recipe.load(write(tmp_path, "target: onnxruntime-cpu\nsteps: [list, doctor]"))
    assert [dict(step.settings) for step in wanted.steps] == [{}, {"target": "onnxruntime-cpu"}]


def test_a_step_is_spelled_as_a_command_line() -> None:
    settings = {"model": "a:b", "arg": {"classes": 10, "name": "x"}, "shape": ["x:1x3", "y:1"], "json": True}
    spelled = words(Step("inspect", "inspect", settings), {}, Path("out"))
    assert {"--model=a:b", "--arg=classes=10", "--arg=name=x", "--shape=x:1x3", "--shape=y:1", "--json"} <= set(spelled)


def test_a_step_is_read_again_as_it_was_written() -> None:
    """Words that YAML has a meaning for stay words, and numbers numbers."""
    day = dt.date(2020, 1, 2)
    args = {"norm": "off", "version": "1.0", "empty": "", "rate": 1e-05, "day": day, "sizes": ["no", 3, day, 1e-05]}
    settings: dict[str, object] = {"model": "a:b", "arg": args}
    spelled = words(Step("inspect", "inspect", settings), {}, Path("out"))
    assert parse("inspect", spelled).params["arg"] == args
    data = {"path": "a:b", "args": {"norm": "off", "rate": 1e-05}}
    spelled = words(Step("quantize", "quantize", {"model": "a:b", "data": data}), {}, Path("out"))
    assert parse("quantize", spelled).params["data"].args == data["args"]


TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["command", "steps", "model", "data", "target", "x"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(
    st.fixed_dictionaries(
        {"steps": st.lists(TEXTS, max_size=3)}, optional={"model": TEXTS, "data": TEXTS, "target": TEXTS}
    )
)
def test_any_yaml_is_a_recipe_or_one_error(tmp_path_factory: pytest.TempPathFactory, text: object) -> None:
    load_or_refuse(write(tmp_path_factory.getbasetemp(), yaml.safe_dump(text)))


LITE0 = parts.path("recipes", "lite0").read_bytes()


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, len(LITE0) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_recipe_with_broken_bytes_is_a_recipe_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    broken = bytearray(LITE0)
    for place, byte in changes:
        broken[place] = byte
    file = tmp_path_factory.getbasetemp() / "broken.yaml"
    file.write_bytes(broken)
    load_or_refuse(str(file))


def load_or_refuse(file: str) -> None:
    try:
        wanted = recipe.load(file)
    except ConvkitError:
        return
    assert all(isinstance(text, str) for step in wanted.steps for text in strings(step.settings))


def test_a_step_is_one_for_each_combination_of_values(tmp_path: Path) -> None:
    text = (
        "steps: [{command: bench, name: b, candidates: ['m:f'], each: {seed: [0, 1], batch: [2], gate: ['p50 <= 1']}}]"
    )
    found = recipe.load(write(tmp_path, text)).steps
    assert [step.name for step in found] == ["b-0-2-0", "b-1-2-0"]
    assert [dict(step.settings) for step in found] == [
        {"candidates": ["m:f"], "seed": seed, "batch": 2, "gate": "p50 <= 1"} for seed in (0, 1)
    ]

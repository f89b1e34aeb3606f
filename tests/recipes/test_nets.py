"""Networks and data of recipes that begin without weights: they trace, hold what they are named after, and learn."""

from pathlib import Path

import numpy as np
import pytest
import torch

from convkit.cli import recipe
from convkit.compress import conv, data, membership, parts
from convkit.compress.convs import gaunt
from convkit.compress.data import DataRef
from convkit.compress.model import ModelRef, TensorSpec, parse_shape
from convkit.compress.sources import factory
from convkit.compress.training.loop import Schedule
from convkit.compress.training.supervised import train, usual_loss
from convkit.recipes.nets import clouds, digits

NAMES = [name for name in parts.names("recipes", ".yaml") if name != "lite0"]
FAMILIES: dict[str, set[str]] = {
    "clouds_equivariant": {"ponita"},
    "clouds_products": {"gaunt"},
    "digits_denoised": {"time_norm"},
    "digits_enlarged": {"re_dilation"},
    "digits_hyper_kernels": {"hyperzzw"},
    "digits_spikes": {"delays"},
    "photos_exposures": {"lut"},
    "photos_places": {"quantized_coordinates"},
    "digits_positions": {"coordinate_maps", "cross_d"},
    "digits_pyramid": {"sepc"},
    "digits_sparse": {"spark"},
    "voxels_motion": {"flow4d"},
    "digits_deformable": {"deform"},
    "digits_gates": {"eca", "ela", "evonorm"},
    "digits_hyperbolic": {"poincare"},
    "digits_searched": {"eca", "ela", "evonorm"},
    "digits_switched": {"eca", "ela", "evonorm"},
    "digits_two_bits": {"eca", "ela", "evonorm"},
    "digits_hypercomplex": {"phc"},
    "digits_large_kernels": {"dcls", "inception_dw", "unireplknet"},
    "digits_rotations": {"lie_group"},
    "photos_sub_pixel": {"sub_pixel_conv"},
    "pitch_ensemble": {"late_fusion"},
    "pitch_long_kernels": {"sgconv"},
    "pitch_periods": {"times_block"},
    "pitch_state_spaces": {"lssl"},
    "waves_factored": set(),  # its layers are plain ones, in chains
    "waves_transform_once": {"transform_once"},
}


@pytest.fixture(params=NAMES)
def step(request: pytest.FixtureRequest) -> recipe.Step:
    """The recipe's training, the first where there are more."""
    found, *_ = (step for step in recipe.load(request.param).steps if step.command == "train")
    return found


def built(step: recipe.Step) -> tuple[torch.nn.Module, ModelRef]:
    torch.manual_seed(0)
    words = step.settings
    told = words["shape"]
    shapes = dict(parse_shape(str(shape)) for shape in (told if isinstance(told, list) else [told]))
    ref = ModelRef(str(words["model"]), None, dict(words["arg"]), shapes)  # type: ignore[call-overload]
    return factory.build(ref), ref


def samples(ref: ModelRef, most: int) -> int:
    """How many it takes at a time."""
    batch = next(iter(ref.shapes.values())).shape[0]
    return batch if isinstance(batch, int) else most


def read(step: recipe.Step, name: str, ref: ModelRef) -> data.Data:
    specs = tuple(TensorSpec(key, own.shape, "float32", own.sample) for key, own in ref.shapes.items())
    return data.load(DataRef(step.settings[name]["path"]), specs)  # type: ignore[index]


def test_every_recipe_has_its_family() -> None:
    assert FAMILIES.keys() == {*NAMES}
    known = {*parts.names(conv.FOLDER)}
    assert all(found <= known for found in FAMILIES.values())


def test_a_network_is_traced_and_made_of_what_it_is_named_after(
    step: recipe.Step, request: pytest.FixtureRequest
) -> None:
    module, ref = built(step)
    model = factory.from_module(module, ref)
    found = {str(node.meta["op"]).partition(":")[0] for node in model.graph.graph.nodes if node.meta.get("op")}
    assert found >= FAMILIES[request.node.callspec.params["step"]]
    assert {*membership.owners(module).values()} >= found
    few = read(step, "validation", ref).batch(slice(samples(ref, 3)))
    x = {name: torch.from_numpy(array) for name, array in few.arrays.items()}
    with torch.no_grad():
        wanted = module.eval()(**x)
    (made,) = model(x).values()
    assert (made - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_a_step_of_training_lessens_the_loss(step: recipe.Step) -> None:
    module, ref = built(step)
    held = read(step, "validation", ref)
    few = held.batch(slice(0, 64))
    assert few.labels is not None
    losses = train(module, few, Schedule(4, samples(ref, 16), 3e-3), usual_loss(few.labels))
    assert losses[-1] < losses[0]


def test_data_is_the_same_each_time_and_parts_are_apart(step: recipe.Step) -> None:
    _, ref = built(step)
    learnt, held = (read(step, name, ref) for name in ("data", "validation"))
    assert read(step, "validation", ref).digest == held.digest
    first = next(iter(held.arrays))
    rows = {sample.tobytes() for sample in held.arrays[first]}
    assert not rows & {sample.tobytes() for sample in learnt.arrays[first]}
    assert np.isfinite(learnt.arrays[first]).all()
    assert len(held) >= 100


def test_nets_stand_beside_the_recipes() -> None:
    folder = Path(recipe.__file__).resolve().parents[1] / "recipes" / "nets"
    named = {str(recipe.load(name).steps[0].settings["model"]).split(":")[0].rpartition(".")[2] for name in NAMES}
    assert named == {file.stem for file in folder.glob("*.py")} - {"__init__"}


def test_a_spread_network_sees_in_a_large_image_what_it_saw_in_the_small_one() -> None:
    """Pixels doubled and taps twice as far apart: the same numbers meet."""
    torch.manual_seed(0)
    small = digits.spread(1).eval()
    large = digits.spread(2).eval()
    large.load_state_dict(small.state_dict())
    with torch.no_grad():
        seen, again = (
            net(torch.from_numpy(images()[0]["input"][:8]))
            for net, images in ((small, digits.validation), (large, digits.enlarged))
        )
    assert (seen - again).abs().max() <= 1e-5 * seen.abs().max()


def test_products_of_harmonics_do_not_turn_with_the_cloud() -> None:
    torch.manual_seed(0)
    net = clouds.products().eval()
    cloud = torch.from_numpy(clouds.validation()[0]["input"][:8])
    turn, _ = torch.linalg.qr(torch.randn(3, 3))
    with torch.no_grad():
        seen, turned = net(cloud), net(cloud @ turn)
    assert (seen - turned).abs().max() <= 1e-4 * seen.abs().max()
    assert (net(cloud * 1.5) - seen).abs().max() > 3e-3 * seen.abs().max()


def test_harmonics_of_a_recipe_are_those_of_the_convolution() -> None:
    theta, phi = np.random.default_rng(0).uniform(0, np.pi, (2, 50))
    unit = np.stack((np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)), -1)
    made = clouds.harmonics(torch.from_numpy(unit)).numpy()
    np.testing.assert_allclose(made.T, gaunt.harmonics(2, theta, phi), atol=1e-12)

"""The README says what is: its commands parse, its links lead somewhere, its lists are the folders."""

import re
import shlex
from pathlib import Path

import click
import pytest

from convkit.cli.step import load_command, parse
from convkit.compress import conv, parts
from convkit.export import kernel

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (convkit .*)$", README, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_line_is_one(line: str) -> None:
    _, name, *words = shlex.split(line, comments=True)
    parse(name, words)


@pytest.mark.parametrize("target", re.findall(r"^\$ make (\w+)", README, re.MULTILINE))
def test_a_make_target_is_one(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", README):
        assert link.startswith("https://") or (ROOT / link).exists()


def test_every_command_is_listed_with_its_line(request: pytest.FixtureRequest) -> None:
    before, rest = README.split("<!-- commands -->\n")
    listed, after = rest.split("<!-- /commands -->")
    lines = (f"| `convkit {name}` | {parts.about('cli/commands', name)} |" for name in parts.names("cli/commands"))
    wanted = "\n".join(["| | |", "|---|---|", *lines, ""])
    if request.config.getoption("--regenerate"):
        (ROOT / "README.md").write_text(f"{before}<!-- commands -->\n{wanted}<!-- /commands -->{after}")
        return
    assert listed == wanted


def test_every_novel_convolution_stands_in_its_table(request: pytest.FixtureRequest) -> None:
    """With what is proven of it."""
    page = ROOT / "docs" / "convs.md"
    before, rest = page.read_text().split("<!-- convs -->\n")
    listed, after = rest.split("<!-- /convs -->")
    formats = ("int8", "fp8_e4m3", "fp16", "bf16")
    lines = [
        f"| conv | paper | tier | engines | {' | '.join(formats)} | kernel |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in parts.names("compress/convs"):
        proof = conv.proof(name)
        assert proof is not None
        engines = [
            engine if does == "runs" else f"{engine} ({does.removeprefix('builds for ')})"
            for engine, does in proof.engines.items()
        ]
        noise = [f"{proof.formats[each].sqnr:.0f} dB" if each in proof.formats else "–" for each in formats]
        own = ", ".join(kernel.of_conv(name)) or "–"
        lines.append(
            f"| `{name}` | {proof.paper} | {proof.tier} | {', '.join(engines)} | {' | '.join(noise)} | {own} |"
        )
    wanted = "\n".join([*lines, ""])
    if request.config.getoption("--regenerate"):
        page.write_text(f"{before}<!-- convs -->\n{wanted}<!-- /convs -->{after}")
        return
    assert listed == wanted


def test_every_kernel_stands_in_its_table(request: pytest.FixtureRequest) -> None:
    """With what it is for, its floor at its usual size, and what the compiler made of it."""
    page = ROOT / "docs" / "kernels.md"
    before, rest = page.read_text().split("<!-- kernels -->\n")
    listed, after = rest.split("<!-- /kernels -->")
    devices = "/".join(map(str, (75, 80, 86, 89, 90, 120)))
    lines = [f"| kernel | computes | part of | floor: MB, million products | registers (SM {devices}) | spills |"]
    lines.append("|---|---|---|---|---|---|")
    for name in kernel.names():
        proven, own = kernel.proven(name), kernel.load(name)
        assert proven is not None
        floor = own.floor(own.usual())
        spilled = [f"{size} bytes on SM {sm}" for sm, size in proven.spilled.items() if size]
        lines.append(
            f"| `{name}` | {parts.about(kernel.FOLDER, name, kernel.FILE)} | {', '.join(proven.convs) or '–'} | "
            f"{floor.bytes / 1e6:.1f}, {floor.macs / 1e6:,.0f} | {'/'.join(map(str, proven.registers.values()))} | "
            f"{', '.join(spilled) or 'none'} |"
        )
    wanted = "\n".join([*lines, ""])
    if request.config.getoption("--regenerate"):
        page.write_text(f"{before}<!-- kernels -->\n{wanted}<!-- /kernels -->{after}")
        return
    assert listed == wanted


def test_every_kind_of_part_stands_in_its_folder() -> None:
    for place in re.findall(r"^\| an? [\w ]+ \| (?:a function in |a folder in )?`([\w/]+)/", README, re.MULTILINE):
        assert (ROOT / place).is_dir()


def test_the_recipe_in_the_readme_is_one() -> None:
    import yaml

    (text,) = re.findall(r"```yaml\n(# recipe.yaml\n.*?)```", README, re.DOTALL)
    for step in yaml.safe_load(text)["steps"]:
        known = {option.name for option in load_command(step["command"]).params if isinstance(option, click.Parameter)}
        assert set(step) - {"command"} <= known | {"gate"}

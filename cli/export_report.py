"""What `convkit export` says of a file that it wrote, and of the engine that was built of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli import show
from convkit.compress.errors import VerdictError

if TYPE_CHECKING:
    from convkit.export.artifact import Artifact

SCHEMA_VERSION = 1
ENGINE = "engine.trt"


def report(written: Artifact, opened: dict[str, str]) -> dict[str, Any]:
    """Of the file, and of engines that opened it."""
    from collections import Counter

    import onnx

    model = onnx.load(written.path, load_external_data=False)
    operators = Counter(node.op_type for node in model.graph.node)
    return {
        "schema_version": SCHEMA_VERSION,
        "artifact": {
            "file": written.path.name,
            "digest": written.digest,
            "engine": written.engine,
            "bytes": sum(file.stat().st_size for file in written.path.parent.glob(f"{written.path.name}*")),
        },
        "opset": next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 1),
        "opened_by": opened,
        "operators": dict(sorted(operators.items())),
    }


def tell(report: dict[str, Any], output: str, *, as_json: bool) -> None:
    """For people, or for machines."""
    from collections import Counter

    if as_json:
        show.json(report)
        return
    artifact = report["artifact"]
    show.table(
        ("operator", "nodes"), list(report["operators"].items()), totals=("total", sum(report["operators"].values()))
    )
    opened = ", ".join(f"{engine} {version}" for engine, version in report["opened_by"].items())
    if "engine" in report:
        _show_engine(report["engine"], output)
    if "kernels" in report:
        counts = Counter(report["kernels"].values())
        show.text(f"computed by kernels of convkit: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    show.text(f"{Path(output) / artifact['file']}: {artifact['bytes']:,} bytes, opset {report['opset']}")
    show.text(f"opened by {opened}" if opened else "checked by onnx; no engine was asked to open it")


def _show_engine(engine: dict[str, Any], output: str) -> None:
    departing = [layer for layer in engine["layers"] if not layer["holds"]]
    if departing:
        rows = [
            (one["node"], one["operator"], one["planned"], one["ran"] or "–", one["layer"] or "–") for one in departing
        ]
        show.table(("node", "operator", "planned", "runs in", "the engine's layer"), rows)
    device = "this device" if engine["sm"] is None else f"SM {engine['sm']}"
    runs = ", ".join(f"{count} in {number}" for number, count in engine["runs_in"].items())
    show.text(
        f"{Path(output) / ENGINE}: {engine['bytes']:,} bytes, for {device}, built by {engine['package']} "
        f"{engine['version']} in {engine['seconds']:.1f} s"
    )
    show.text(f"layers with weights: {runs or 'none'}")
    apart = [one["file"] for one in engine["plugins"] if not one["in_engine"]]
    if apart:
        python = all(file.endswith(".py") for file in apart)
        load = "call register(trt) of it" if python else "load it, or call register(trt) of it,"
        show.text(f"the engine does not hold {', '.join(apart)}: {load} before you read the engine")


def check(report: dict[str, Any]) -> None:
    """The precision assertion; what was built is there to be looked at."""
    departing = [layer for layer in report.get("engine", {}).get("layers", ()) if not layer["holds"]]
    if departing:
        first, more = departing[0], f", and {len(departing) - 1} more" if len(departing) > 1 else ""
        raise VerdictError(
            f"the engine departs from the plan: {first['operator']} {first['node']!r} is planned in {first['planned']} "
            f"and runs in {first['ran'] or 'no layer of its own'}{more}",
            hint="report.json has every layer; plan these in what they run in",
        )

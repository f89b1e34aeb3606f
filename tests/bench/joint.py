"""One search over widths, forms and formats, beside the best of these one after another under one limit on time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from convkit.cli import figures, show
from convkit.runtimes.bench.estimate import point
from tests.bench import compressed, product
from tests.bench.limits import Line

NETWORK = "vgg"
LIMIT = 0.35
"""Of float's time."""
TOGETHER = "together"
SEQUENCES: dict[str, tuple[tuple[str, float], ...]] = {
    "quantize": (("quantize", LIMIT),),
    "shrink, quantize": (("shrink", 0.8), ("quantize", LIMIT / 0.8)),
    "shrink more, quantize": (("shrink", 0.6), ("quantize", LIMIT / 0.6)),
    "factorize, quantize": (("factorize", 0.8), ("quantize", LIMIT / 0.8)),
    "shrink, factorize, quantize": (("shrink", 0.8), ("factorize", 0.85), ("quantize", LIMIT / 0.68)),
}
"""Commands and what each may leave of the time of what it is given."""
_FORMATS, _FORMS = "int8", "tucker2,spatial_svd,channel_svd"


def lines(say: Callable[[str], None], report: dict[str, Any], output: Path) -> Iterator[Line]:
    """The joint search's network is no slower and no less accurate than each sequence's within the limit."""
    found = run(say, output)
    report["joint"] = [asdict(one) for one in found]
    rows = [[one.name, figures.ratio(one.ratio), f"{one.size / 1e3:.0f} kB", f"{one.score:.2f}"] for one in found]
    show.table(["made by", "time", "size", "top-1"], rows)
    joint = next(one for one in found if one.name == TOGETHER)
    yield Line(NETWORK, "time of the joint search's over float's", joint.ratio, "<=", LIMIT, "x")
    others = [one for one in found if one.name in SEQUENCES and one.ratio.low <= LIMIT]
    best = max((one.score for one in others), default=0.0)
    yield Line(
        NETWORK, "its top-1 less the best sequence's within the limit", point(joint.score - best), ">=", 0.0, "%"
    )


def run(say: Callable[[str], None], output: Path) -> list[compressed.Made]:
    """float, the joint search's network, and each sequence's."""
    subject = compressed.subject(NETWORK, say, output)
    original, data = subject.model, subject.data
    files = {compressed.FLOAT: (compressed.FLOAT, original)}
    say(f"{NETWORK}: together")
    together = ["--forms", _FORMS, "--formats", _FORMATS]
    files[TOGETHER] = "convkit", _made("shrink", original, data, LIMIT, output / "together", together)
    for name, steps in SEQUENCES.items():
        say(f"{NETWORK}: {name}")
        model = original
        for place, (command, limit) in enumerate(steps):
            options = {"quantize": ["--formats", _FORMATS], "factorize": _forms()}.get(command, [])
            folder = output / f"{name.replace(', ', '_').replace(' ', '_')}_{place}"
            model = _made(command, model, data, limit, folder, options)
        files[name] = "convkit", model
    say(f"{NETWORK}: {len(files)} files are timed")
    return compressed.measured(files, subject, say)


def _forms() -> list[str]:
    return [word for name in _FORMS.split(",") for word in ("--form", name)]


def _made(command: str, model: Path, data: Path, limit: float, folder: Path, options: Sequence[str]) -> Path:
    """What the command leaves within `limit` of its model's time, or the nearest to that."""
    words = [command, str(model), "--data", str(data), "--latency", f"<={limit:.3f}x", "--max-drop", "100"]
    try:
        product.run([*words, "--min-sqnr", "0", *options, "-o", str(folder)])
    except product.FailedError as failure:
        if failure.code != 1:
            raise
    return folder / "model.onnx"

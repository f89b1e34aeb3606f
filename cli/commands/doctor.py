"""Say which engines and targets work here, and how to get the others.

An engine that is missing is no fault: the answer is its install line. Only `--target` makes it one (exit 3).
"""

from __future__ import annotations

import os
from typing import Any

import click

from convkit.cli import options, show
from convkit.compress import parts, record, target
from convkit.compress.errors import ConvkitError, NotAvailableError


@click.command
@options.target
@options.json
def doctor(target: str | None, as_json: bool) -> None:
    """Say which engines and targets work here, and how to get the others.

    \b
    Examples:
      convkit doctor
      convkit doctor --json
      convkit doctor --target openvino-cpu     (exit 3 if it does not work here)
    """
    engines = {name: _engine(name) for name in parts.names("runtimes")}
    targets = {name: _target(name, engines) for name in _targets(target)}
    facts = {"schema_version": 1, "machine": _machine(), "versions": record.versions()}
    if as_json:
        show.json({**facts, "engines": engines, "targets": targets})
    else:
        _show(facts, engines, targets)
    missing = [entry for entry in targets.values() if not entry["works"]]
    if target and missing:
        raise NotAvailableError(
            f"target {target} does not work here: {missing[0]['reason']}", hint=missing[0]["install"]
        )


PART = doctor


def _targets(asked: str | None) -> list[str]:
    return [asked] if asked else parts.names("recipes/targets", ".yaml")


def _engine(name: str) -> dict[str, Any]:
    try:
        version = parts.load("runtimes", name).version()
    except ConvkitError as error:
        return {"works": False, "version": None, "reason": error.message, "install": error.hint}
    return {"works": True, "version": version, "reason": "", "install": ""}


def _target(name: str, engines: dict[str, dict[str, Any]]) -> dict[str, Any]:
    wanted = target.load(name)
    missing = {"works": False, "reason": f"no engine is called {wanted.engine!r}", "install": ""}
    engine = engines.get(wanted.engine, missing)
    facts = {key: engine[key] for key in ("works", "reason", "install")}
    return {"engine": wanted.engine, "about": wanted.about, **facts}


def _machine() -> dict[str, Any]:
    import psutil

    from convkit.runtimes.bench.machine import flags
    from convkit.runtimes.session import nvml

    gpu = nvml.facts()
    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    return {**record.machine(), "cores": os.cpu_count(), "memory": memory, "features": flags(), "gpu": gpu}


def _show(facts: dict[str, Any], engines: dict[str, dict[str, Any]], targets: dict[str, dict[str, Any]]) -> None:
    known, gpu = facts["machine"], facts["machine"]["gpu"]
    features = ", ".join(known["features"]) or "none that convkit knows"
    machine = {**known, "features": features, "gpu": gpu["name"] if gpu else "none that NVML tells of"}
    show.table(("machine", ""), [(key, str(value)) for key, value in machine.items()])
    show.table(("package", "version"), list(facts["versions"].items()))
    rows = [(name, e["version"] or "–", "works" if e["works"] else e["install"]) for name, e in engines.items()]
    show.table(("engine", "version", "here"), rows)
    lines = [(name, t["engine"], "works" if t["works"] else t["install"], t["about"]) for name, t in targets.items()]
    show.table(("target", "engine", "here", "about"), lines)

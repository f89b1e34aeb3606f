"""The process in which an engine is built, for a builder that crashes takes its process with it.

Started by `build.py` as `python -m convkit.export.tensorrt.child FOLDER`: reads request.json there, leaves engine.trt,
perhaps timing.cache, and result.json.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convkit.compress.errors import ConvkitError
from convkit.export.tensorrt import package, plugin

REQUEST, RESULT, ENGINE, CACHE = "request.json", "result.json", "engine.trt", "timing.cache"
_TOLD = ("ERROR", "INTERNAL_ERROR", "WARNING")


def main(folder: Path) -> None:
    """Build what `folder` asks for."""
    asked = json.loads((folder / REQUEST).read_text())
    trt = importlib.import_module(asked["package"])
    log = package.Logger(trt)
    started = time.perf_counter()
    errors, wrong = [], None
    try:
        errors = _built(trt, asked, log, folder)
    except ConvkitError as error:
        wrong = [error.message, error.hint]
    found = {
        "errors": errors,
        "wrong": wrong,
        "seconds": time.perf_counter() - started,
        "version": trt.__version__,
        "log": [text for level, text in log.messages if level == "VERBOSE" and "Layers:" in text],
        "said": [(level, text) for level, text in log.messages if level in _TOLD],
    }
    (folder / RESULT).write_text(json.dumps(found))


def _built(trt: Any, asked: Mapping[str, Any], log: package.Logger, folder: Path) -> list[dict[str, str]]:  # noqa: ANN401 - the package has no types
    """Write the engine; what kept it from being built instead, node by node where the parser names one.

    Raises ConvkitError for plugins.
    """
    settings = asked["settings"]
    try:
        builder = trt.Builder(log.log)
    except TypeError as error:  # what its bindings say of an object that its library could not make
        return [_general(f"{error}: {_worst(log) or 'it gave no reason'}", "see that its driver and its version fit")]
    plugin.shipped(trt, log.log)
    plugin.register(trt, settings["plugins"])
    if asked["kernels"]:
        from convkit.export.tensorrt import kernel_plugin

        kernel_plugin.register(trt, asked["kernels"], settings["sm"])
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, log.log)
    if not parser.parse_from_file(asked["model"]):
        found = (parser.get_error(index) for index in range(parser.num_errors))
        return [
            {"node": error.node_name(), "operator": error.node_operator(), "words": error.desc()} for error in found
        ]
    config = _config(trt, builder, network, settings)
    if settings["cache"] and not _cached(config, settings["cache"], log):
        words = "the timing cache is of another device or version, or corrupt"
        return [_general(words, f"remove {settings['cache']}, or give another --timing-cache")]
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        return [_general(_worst(log) or "it gave no engine and no reason", _MORE)]
    (folder / ENGINE).write_bytes(bytes(engine))
    if settings["cache"]:
        (folder / CACHE).write_bytes(bytes(config.get_timing_cache().serialize()))
    return []


_MORE = "`convkit lint` names what it cannot take; more --workspace or a lower --builder-level may help"


def _general(words: str, hint: str) -> dict[str, str]:
    """An error of no node's."""
    return {"node": "", "operator": "", "words": words, "hint": hint}


def _worst(log: package.Logger) -> str:
    """The last error that the package told of."""
    return next((text for level, text in reversed(log.messages) if level.endswith("ERROR")), "")


def _cached(config: Any, file: str, log: package.Logger) -> bool:  # noqa: ANN401 - the package has no types
    """Whether the builder takes the times in `file`; it goes on with an empty cache where it cannot read it."""
    cache = config.create_timing_cache(_bytes(file))
    unread = any("Failed to deserialize timing cache" in text for _, text in log.messages)
    return cache is not None and not unread and config.set_timing_cache(cache, ignore_mismatch=False)


def _strongly_typed(trt: Any) -> int:  # noqa: ANN401 - the package has no types
    """From version 11 on every network is."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _config(trt: Any, builder: Any, network: Any, settings: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the package has no types
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if settings["sm"] is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{settings['sm']}"), 0)
    if settings["workspace"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings["workspace"])
    if settings["level"] is not None:
        config.builder_optimization_level = settings["level"]
    if settings["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings["hardware_compatible"]:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if settings["version_compatible"]:  # no other engine holds any
        config.plugins_to_serialize = plugin.libraries(settings["plugins"])
    _profile(builder, network, config, settings["profile"])
    return config


def _profile(builder: Any, network: Any, config: Any, asked: Mapping[str, Any]) -> None:  # noqa: ANN401 - the package has no types
    """One profile, for inputs with free sizes; `build.py` saw to it that each has its shapes."""
    inputs = (network.get_input(index) for index in range(network.num_inputs))
    free = [each.name for each in inputs if any(size < 0 for size in each.shape)]
    if free:
        profile = builder.create_optimization_profile()
        for name in free:
            profile.set_shape(name, *(asked[role][name] for role in ("least", "usual", "most")))
        config.add_optimization_profile(profile)


def _bytes(file: str | None) -> bytes:
    return Path(file).read_bytes() if file and Path(file).is_file() else b""


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Say what an engine will refuse of an ONNX file, or run otherwise than the file says.

Nothing is built and no engine is needed; exit 1 where there is something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from convkit.cli import engine_options, options, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from convkit.export.lint import Finding


@click.command
@click.argument("file", metavar="FILE.onnx")
@options.target
@click.option("--sm", type=click.IntRange(50, 200), metavar="SM", help="Compute capability it is for: 89 is 8.9.")
@click.option(
    "--plugin", multiple=True, metavar="FILE.so|FILE.py", help="As for `convkit export`: it may have any operator."
)
@options.json
def lint(*, file: str, target: str | None, sm: int | None, plugin: tuple[str, ...], as_json: bool) -> None:
    """Say what an engine will refuse of an ONNX file, or run otherwise than the file says.

    Each finding names the node, the rule and what to do. The target is trt-rtx unless --target says another.

    \b
    Examples:
      convkit lint net.onnx --target trt-rtx
      convkit lint net.onnx --target trt-rtx --sm 75 --json
    """
    from convkit.compress import target as targets
    from convkit.compress.errors import VerdictError
    from convkit.export import lint as rules
    from convkit.export.tensorrt import asserted, package

    wanted = targets.load(target or "trt-rtx")
    for path in plugin:
        engine_options.plugin(path)
    known = package.PACKAGES.get(wanted.engine)
    if sm is not None and known is not None and known.sms:
        package.check_sm(wanted.engine, sm, fp8=False)
    model = _read(file)
    asserted.inlined(model)
    found = rules.lint(model, wanted.engine, rules.Device(sm, bool(plugin)))
    if as_json:
        show.json({"schema_version": 1, "target": wanted.name, "sm": sm, "findings": [_dict(one) for one in found]})
    else:
        _show(found, file)
    if found:
        raise VerdictError(f"{wanted.name} does not take {file} as it is: {len(found)} findings")


PART = lint


def _read(file: str) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    from convkit.compress.errors import ConvkitError
    from convkit.runtimes.session import check_file

    check_file(file)
    try:
        return onnx.load(file, format="protobuf")
    except DecodeError as error:
        raise ConvkitError(f"{file} is no ONNX file", hint="`convkit export` writes one") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        words = " ".join(str(error).split())[:300]
        raise ConvkitError(f"cannot read {file}: {words}", hint="keep its data beside it") from error


def _dict(finding: Finding) -> dict[str, str]:
    from dataclasses import asdict

    return asdict(finding)


def _show(found: Sequence[Finding], file: str) -> None:
    if not found:
        show.text(f"{file}: nothing to find fault with")
        return
    rows = [(one.node or "(the file)", one.operator, one.rule, one.words, one.advice) for one in found]
    show.table(("node", "operator", "rule", "what", "what to do"), rows)

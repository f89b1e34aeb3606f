"""A process in which a kernel runs in Triton's interpreter, which must be told before Triton is imported.

`python -m tests.export.ops.interpreted NAME` writes, of each case and type, how far the kernel lies from its reference.
"""

import json
import os
import sys

BY_TYPE = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}
"""Largest error over the largest number: sums are in float32, the output is rounded once."""


def coarsest(kernel, case, kind: str) -> str:  # noqa: ANN001 - torch is imported later
    """Of the types that numbers are in: tensors that have one of their own keep it."""
    own = (str(case.tensors[name].dtype).removeprefix("torch.") for name in kernel.mixed)
    return max((kind, *(each for each in own if each in BY_TYPE)), key=BY_TYPE.__getitem__)


def main(name: str) -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    import torch

    from convkit.export import kernel as kernels
    from convkit.export.kernel import Case

    kernel, found = kernels.load(name), []
    for number, case in enumerate(kernel.cases()):
        for kind in ("float32", *kernel.types):
            if kind == "bfloat16" and kernel.multiplies:
                continue  # the interpreter multiplies the bits of such matrices as whole numbers
            own = {n: t if n in kernel.mixed else t.to(getattr(torch, kind)) for n, t in case.tensors.items()}
            made = kernels.run(kernel, Case(own, case.attributes)).double()
            wide = {n: t if n in kernel.mixed else t.double() for n, t in own.items()}
            wanted = kernel.reference(wide, case.attributes)
            off = float((made - wanted).abs().max() / wanted.abs().max()) if made.shape == wanted.shape else None
            found.append((number, coarsest(kernel, case, kind), off))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])

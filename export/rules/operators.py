"""Operators that the engine's parser has, or a plugin, or a body in the file."""

from collections.abc import Iterator

import onnx

from convkit.export.lint import Broken, File, Rule

_NUMBERS = ("Bernoulli", "Col2Im", "CumProd", "Det", "DFT", "MelWeightMatrix", "Unique")
_BITS = ("BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor")
_LOSSES = ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
_REFUSED = {
    "DeformConv": "build convkit's kernel in (`convkit export --kernel deform_conv`), or give a plugin",
    "QLinearConv": "write Conv between QuantizeLinear and DequantizeLinear",
    "QLinearMatMul": "write MatMul between QuantizeLinear and DequantizeLinear",
    "ConvInteger": "write Conv between QuantizeLinear and DequantizeLinear",
    "MatMulInteger": "write MatMul between QuantizeLinear and DequantizeLinear",
    "DynamicQuantizeLinear": "calibrate, and quantize with constant scales",
    **dict.fromkeys(_NUMBERS, "compute it outside of the network"),
    **dict.fromkeys(_BITS, "compute with integers' sums and products, or outside of the network"),
    **dict.fromkeys(_LOSSES, "leave the loss out: export the network as it is deployed"),
    "AffineGrid": "write the grid as a constant, or as products",
    "CenterCropPad": "write Slice and Pad",
    "Compress": "write Gather with constant places",
    "MaxUnpool": "write Resize, or ConvTranspose",
    "SwiGLU": "write Sigmoid and Mul",
    "FusedConv": "it is another engine's own: export the network before that optimized it",
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), "leave it out"),
    "SequenceConstruct": "leave sequences out",
    "StringNormalizer": "read text outside of the network",
    "TfIdfVectorizer": "read text outside of the network",
}
_STANDARD = ("", "ai.onnx")
_SHIPPED = (
    "_TRT",
    "CoordConvAC",
    "CropAndResizeDynamic",
    "DecodeBbox3DPlugin",
    "ModulatedDeformConv2d",
    "PillarScatterPlugin",
    "ProposalDynamic",
    "ScatterElements",
    "VoxelGeneratorPlugin",
)
"""What the names of the plugins that TensorRT has itself end in."""
_GIVE = "export it with the plugin, --plugin FILE, or give it a body in standard operators"
_OPSETS = range(9, 26)


def look(file: File) -> Iterator[Broken]:
    """The file's opset, and each node without any of these."""
    model = file.model
    opset = next((entry.version for entry in model.opset_import if entry.domain in _STANDARD), None)
    if opset is not None and opset not in _OPSETS:
        yield None, f"the file is of opset {opset}", f"export it with --opset {_OPSETS[0]} to {_OPSETS[-1]}"
    bodies = {(function.domain, function.name) for function in model.functions}
    for node in file.nodes:
        known = file.device.plugins or (node.domain, node.op_type) in bodies
        if node.domain not in _STANDARD and not known:
            if not node.op_type.endswith(_SHIPPED):
                yield node, f"nobody knows {node.domain}::{node.op_type}", _GIVE
        elif known or node.op_type.endswith(_SHIPPED):
            continue
        elif node.op_type in _REFUSED:
            yield node, f"the parser has no {node.op_type}", _REFUSED[node.op_type]
        elif not onnx.defs.has(node.op_type):
            yield node, f"nobody knows {node.op_type}", _GIVE


PART = Rule(look)

"""Smaller numbers: a network in fp16, or in int8 by static quantisation, and how far its actions move.

int8 (QDQ, activations uint8, weights int8 per channel; Nagel et al., 2106.08295): the encoder's convolutions and layers
only. Resizing, normalisation, the actor's layers and the way into the robot's units stay as they are. Ranges come from
every other recorded frame; the rest tests the result, so that no frame does both.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from pixelrl.export.parity import parts
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import Policy, Sensors

Precision = Literal["fp32", "fp16", "int8"]

INNER = ("Conv", "Gemm")
"""The operators whose numbers get smaller."""

LIMIT = 0.04
"""What 99 of 100 differences may be at most, of half a dimension's range: 2 % of the range."""

CLEAR = 0.1
"""A normalised action beyond this has a sign that must not flip: grippers act by it."""


def halves(frames: Sensors) -> tuple[Sensors, Sensors]:
    """Return every other frame, to find ranges by, and the rest, to test by.

    Raises:
        PixelrlError: there are fewer than two.
    """
    if min(len(value) for value in frames.values()) < 2:
        raise PixelrlError("export: a smaller precision takes two recorded frames or more")
    first, second = ({key: value[start::2] for key, value in frames.items()} for start in (0, 1))
    return first, second


def reduce_precision(path: Path, precision: Precision, frames: Sensors) -> None:
    """Replace a network by one with smaller numbers.

    Args:
        path: the ONNX file.
        precision: `fp16` or `int8`.
        frames: recorded inputs `[N, ...]` that int8 takes its ranges from.
    """
    if precision == "fp16":
        model = onnx.load(path)
        others = [node.name for node in model.graph.node if node.op_type not in (*INNER, "Relu")]
        onnx.save(convert_float_to_float16(model, keep_io_types=True, node_block_list=others), path)
        return
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            _Frames(frames),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(INNER),
            per_channel=True,
            reduce_range=True,  # or sums of products saturate on x86 without VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=head(onnx.load(prepared)),
        )


def head(model: onnx.ModelProto) -> list[str]:
    """Return the layers behind the encoder, and the last one in any case: they are small, and errors there act."""
    gemms = [node for node in model.graph.node if node.op_type == "Gemm"]
    of_actor = [node for node in gemms if any("actor." in name and "encoder" not in name for name in node.input)]
    return [node.name for node in gemms if node in of_actor or node is gemms[-1]]


class _Frames(CalibrationDataReader):  # type: ignore[misc]
    """Recorded frames, as onnxruntime asks for them."""

    def __init__(self, frames: Sensors) -> None:
        self._parts = parts(frames)

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        return next(self._parts, None)


def check_precision(reduced: Policy, exact: Policy, frames: Sensors) -> dict[str, Any]:
    """Compare normalised actions, and return how their differences are distributed.

    Returns:
        `frames`; `p50`, `p99`, `max` of |difference|, of half a dimension's range; `sign_flips`, of clear actions;
        `limit` of p99.

    Raises:
        PixelrlError: p99 is above the limit, or a clear action changes its sign.
    """
    pairs = [(reduced(part), exact(part)) for part in parts(frames)]
    one, other = (np.concatenate(side).reshape(-1, side[0].shape[-1]) for side in zip(*pairs, strict=True))
    p50, p99, largest = (float(each) for each in np.percentile(np.abs(one - other), [50, 99, 100]))
    flips = int(((np.sign(one) != np.sign(other)) & (np.abs(other) > CLEAR)).sum())
    if not p99 <= LIMIT or flips:
        raise PixelrlError(
            f"export: in this precision 1 of 100 actions differs by more than {p99:.3f} of half the range, and {flips} "
            f"change their sign; at most {LIMIT} and none pass. Nothing was written: use --precision fp32"
        )
    count = min(map(len, frames.values()))
    return {"frames": count, "p50": p50, "p99": p99, "max": largest, "sign_flips": flips, "limit": LIMIT}

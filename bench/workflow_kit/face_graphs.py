"""Random layers with the inputs and outputs that FlashPortrait's node reads of its two ONNX files.

Their own graphs are not to be had without the files. The shapes are those of the node's code: face_det.py (a
NanoDet with one class, at strides of 8, 16 and 32) and face_align.py (222 landmarks, three angles, a
probability), of okdalto/ComfyUI-FlashPortrait at 25598f3d.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

STRIDES: Final = (8, 16, 32)
BINS: Final = 4 * 8
"""Of a box: four sides, each a distribution over eight distances."""
LANDMARKS: Final = {"landmark": 2 * 222, "euler": 3, "prob": 1}


def write(folder: Path) -> None:
    """Write face_det.onnx and face_landmark.onnx."""
    import numpy as np  # noqa: PLC0415 - this alone needs it

    chance = np.random.default_rng(7)

    def random(*shape: int) -> Any:
        return chance.normal(size=shape).astype(np.float32)

    _save(folder / "face_det.onnx", [1, 3, 272, 160], *_detector(random, np))
    _save(folder / "face_landmark.onnx", [1, 3, 128, 128], *_landmarks(random))


def _detector(random: Any, np: Any) -> tuple[list[Any], dict[str, int], dict[str, Any]]:
    """Return nodes, the outputs' ranks, and tensors: each stride's picture, seen through one layer."""
    from onnx.helper import make_node  # noqa: PLC0415 - as above

    nodes = []
    tensors = {"rows": np.array([1, 1 + BINS, -1]), "parts": np.array([1, BINS])}
    for stride in STRIDES:
        tensors[f"w{stride}"] = random(1 + BINS, 3, 1, 1)
        square = {"kernel_shape": [stride] * 2, "strides": [stride] * 2, "ceil_mode": 1}
        nodes += [
            make_node("AveragePool", ["x"], [f"p{stride}"], **square),
            make_node("Conv", [f"p{stride}", f"w{stride}"], [f"c{stride}"]),
            make_node("Reshape", [f"c{stride}", "rows"], [f"f{stride}"]),
            make_node("Transpose", [f"f{stride}"], [f"t{stride}"], perm=[0, 2, 1]),
            make_node("Split", [f"t{stride}", "parts"], [f"l{stride}", f"box{stride}"], axis=2),
            make_node("Sigmoid", [f"l{stride}"], [f"score{stride}"]),
        ]
    return nodes, {f"{what}{stride}": 3 for what in ("score", "box") for stride in STRIDES}, tensors


def _landmarks(random: Any) -> tuple[list[Any], dict[str, int], dict[str, Any]]:
    """Return the same of one layer over a face's small picture."""
    from onnx.helper import make_node  # noqa: PLC0415 - as above

    nodes = [
        make_node("AveragePool", ["x"], ["p"], kernel_shape=[16, 16], strides=[16, 16]),
        make_node("Flatten", ["p"], ["f"]),
    ]
    tensors: dict[str, Any] = {}
    for name, count in LANDMARKS.items():
        tensors |= {f"w_{name}": random(192, count) * 0.1, f"b_{name}": random(count)}
        nodes += [
            make_node("Gemm", ["f", f"w_{name}", f"b_{name}"], [f"g_{name}"]),
            make_node("Sigmoid", [f"g_{name}"], [name]),
        ]
    return nodes, dict.fromkeys(LANDMARKS, 2), tensors


def _save(out: Path, shape: list[int], nodes: list[Any], outputs: dict[str, int], tensors: Any) -> None:
    import onnx  # noqa: PLC0415 - as above
    from onnx import helper  # noqa: PLC0415

    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        out.stem,
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, [None] * rank) for name, rank in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    # Opset and format that the oldest onnxruntime of the node's requirements reads.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, out)

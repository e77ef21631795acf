"""Random damage to bundles whose manifest is then signed anew, and the sweep over every attribute
and input of every node.

A mutant is made from a seed alone, so a number repeats it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from tests.hostile.signing import GOLDEN, copy_of, read_values, sign

BUNDLES = (
    "tiny-edge",
    "tiny-portable",
    "native-int8",
    "native-int4",
    "native-int8-block",
    "native-gelu-int8",
    "native-relu-int8",
)
KEEP = ("model.onnx", "manifest.json", "model.onnx.data")
WHOLE = (0, 1, -1, 2, 7, 255, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63))
FLOATS = (0.0, -1.0, 1e38, float("inf"), float("nan"))
NAMES = ("", "logits", "input_ids", "no such value", "\ud800", "x" * 3000)
OPERATORS = ("Loop", "If", "Abs", "DepthToSpace", "Expand", "MatMul", "Add", "Gather", "Reshape")

Change = Callable[[random.Random, onnx.ModelProto], None]


@dataclass(frozen=True)
class Mutant:
    """One bundle to try. name: repeats it."""

    name: str
    bundle: str
    write: Callable[[Path], None]


def flipped_bit(seed: int) -> Mutant:
    """A bit of a file turned; the manifest as it was, so that a checksum is wrong."""
    draw = random.Random(seed)
    bundle = draw.choice(BUNDLES)
    name = draw.choice(KEEP)
    at, bit = draw.random(), draw.randrange(8)

    def write(out: Path) -> None:
        copy_of(bundle, out, KEEP)
        data = bytearray((GOLDEN / bundle / name).read_bytes())
        data[int(at * len(data))] ^= 1 << bit
        (out / name).write_bytes(data)

    return Mutant(f"bit {seed}", bundle, write)


def resigned(seed: int) -> Mutant:
    """Bytes, parts of the graph, weights or the config changed, and signed anew."""
    draw = random.Random(seed)
    bundle = draw.choice(BUNDLES)
    kind = draw.choice([_bytes, _bytes, _parts, _parts, _parts, _weights, _config])

    def write(out: Path) -> None:
        copy_of(bundle, out, KEEP)
        kind(random.Random(seed), out)

    return Mutant(f"signed {seed} {kind.__name__[1:]}", bundle, write)


def _bytes(draw: random.Random, folder: Path) -> None:
    path = folder / "model.onnx"
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(data))
        what = draw.randrange(5)
        if what == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif what == 1:
            data[at] = draw.choice((0, 1, 127, 128, 255))
        elif what == 2:
            del data[at : at + draw.choice((1, 2, 8, 100))]
        elif what == 3:
            data[at:at] = draw.randbytes(draw.choice((1, 2, 8)))
        else:
            other = draw.randrange(len(data))
            data[at : at + 40] = data[other : other + 40]
    path.write_bytes(data)
    sign(folder)


def _weights(draw: random.Random, folder: Path) -> None:
    path = folder / "model.onnx.data"
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 4, 64))):
        at = draw.randrange(len(data))
        data[at : at + 4] = draw.choice((bytes(4), b"\xff" * 4, draw.randbytes(4)))[
            : len(data) - at
        ]
    if draw.randrange(4) == 0:
        del data[draw.randrange(len(data)) :]
    path.write_bytes(data)
    sign(folder)


def _config(draw: random.Random, folder: Path) -> None:
    values = read_values(folder)
    name = draw.choice(sorted(values["config"]))
    old = values["config"][name]
    choices = [*WHOLE[:9], 16, 1 << 20, None, "x", 1.5, [], True]
    if isinstance(old, int) and not isinstance(old, bool):
        choices += [old + 1, old - 1, 2 * old]
    values["config"][name] = draw.choice(choices)
    sign(folder, values)


def _parts(draw: random.Random, folder: Path) -> None:
    path = folder / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        draw.choice(CHANGES)(draw, model)
    path.write_bytes(model.SerializeToString())
    sign(folder)


def _node(draw: random.Random, model: onnx.ModelProto) -> onnx.NodeProto:
    return draw.choice(model.graph.node)


def _drop(draw: random.Random, model: onnx.ModelProto) -> None:
    part = draw.choice((model.graph.node, model.graph.initializer, model.graph.input))
    if len(part):
        del part[draw.randrange(len(part))]


def _repeat(draw: random.Random, model: onnx.ModelProto) -> None:
    part = draw.choice((model.graph.node, model.graph.initializer, model.graph.output))
    if len(part):
        part.add().CopyFrom(draw.choice(part))


def _swap(draw: random.Random, model: onnx.ModelProto) -> None:
    first, second = _node(draw, model), _node(draw, model)
    kept = onnx.NodeProto()
    kept.CopyFrom(first)
    first.CopyFrom(second)
    second.CopyFrom(kept)


def _rewire(draw: random.Random, model: onnx.ModelProto) -> None:
    node, other = _node(draw, model), _node(draw, model)
    names = [*other.output, *(tensor.name for tensor in model.graph.initializer), *NAMES[:4]]
    if node.input:
        node.input[draw.randrange(len(node.input))] = draw.choice(names)


def _more_inputs(draw: random.Random, model: onnx.ModelProto) -> None:
    _node(draw, model).input.append(draw.choice(("", "input_ids", "logit_rows")))


def _fewer_inputs(draw: random.Random, model: onnx.ModelProto) -> None:
    node = _node(draw, model)
    if node.input:
        del node.input[draw.randrange(len(node.input))]


def _operator(draw: random.Random, model: onnx.ModelProto) -> None:
    names = [*OPERATORS, *(node.op_type for node in model.graph.node)]
    _node(draw, model).op_type = draw.choice(names)


def _domain(draw: random.Random, model: onnx.ModelProto) -> None:
    _node(draw, model).domain = draw.choice(("", "com.microsoft", "gpt_edge", "ai.onnx.ml"))


def _attribute(draw: random.Random, model: onnx.ModelProto) -> None:
    node = draw.choice([node for node in model.graph.node if node.attribute])
    item = draw.choice(node.attribute)
    if item.type == onnx.AttributeProto.INT:
        item.i = draw.choice(WHOLE)
    elif item.type == onnx.AttributeProto.FLOAT:
        item.f = draw.choice(FLOATS)
    elif item.type == onnx.AttributeProto.INTS:
        item.ints[:] = [draw.choice(WHOLE) for _ in range(draw.randrange(6))]
    elif item.type == onnx.AttributeProto.TENSOR:
        item.t.raw_data = draw.choice(WHOLE).to_bytes(8, "little", signed=True)


def _tensor(draw: random.Random, model: onnx.ModelProto) -> None:
    tensor = draw.choice(model.graph.initializer)
    what = draw.randrange(4)
    if what == 0 and tensor.dims:
        tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(WHOLE)
    elif what == 1:
        tensor.data_type = draw.randrange(26)
    elif what == 2 and tensor.external_data:
        item = draw.choice(tensor.external_data)
        item.value = str(draw.choice(("../x", "/dev/zero", "", *WHOLE, 64, 4096)))
    elif tensor.raw_data:
        tensor.raw_data = draw.randbytes(len(tensor.raw_data))


def _shape(draw: random.Random, model: onnx.ModelProto) -> None:
    part = draw.choice((model.graph.input, model.graph.output, model.graph.value_info))
    if len(part):
        tensor = draw.choice(part).type.tensor_type
        if draw.randrange(3) == 0:
            tensor.elem_type = draw.randrange(24)
        elif tensor.shape.dim:
            draw.choice(tensor.shape.dim).dim_value = draw.choice(WHOLE)


CHANGES: tuple[Change, ...] = (
    _drop,
    _repeat,
    _swap,
    _rewire,
    _rewire,
    _more_inputs,
    _fewer_inputs,
    _operator,
    _domain,
    _attribute,
    _attribute,
    _tensor,
    _tensor,
    _shape,
)


def sweep() -> Iterator[Mutant]:
    """Every attribute of every node with each wrong value, and every input with another name."""
    for bundle in BUNDLES[:5]:
        model = onnx.load(GOLDEN / bundle / "model.onnx", load_external_data=False)
        for at, node in enumerate(model.graph.node):
            for number, item in enumerate(node.attribute):
                values = FLOATS if item.type == onnx.AttributeProto.FLOAT else WHOLE
                for value in values:
                    yield _swept(bundle, at, "attribute", number, value)
            for number in range(len(node.input)):
                for name in ("", "logits", "input_ids", node.output[0]):
                    yield _swept(bundle, at, "input", number, name)


def _swept(bundle: str, at: int, part: str, number: int, value: object) -> Mutant:
    def write(out: Path) -> None:
        copy_of(bundle, out)
        model = onnx.load(out / "model.onnx", load_external_data=False)
        node = model.graph.node[at]
        if part == "input":
            node.input[number] = str(value)
        else:
            _set(node.attribute[number], value)
        (out / "model.onnx").write_bytes(model.SerializeToString())
        sign(out)

    return Mutant(f"sweep {bundle} {at} {part} {number} {value!r}", bundle, write)


def _set(item: onnx.AttributeProto, value: object) -> None:
    if isinstance(value, float):
        item.f = value
    elif isinstance(value, int) and item.type == onnx.AttributeProto.INT:
        item.i = value
    elif isinstance(value, int) and item.type == onnx.AttributeProto.INTS:
        item.ints[:] = [value, *item.ints[1:]]
    elif isinstance(value, int):
        item.t.raw_data = value.to_bytes(8, "little", signed=True)

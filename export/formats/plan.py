"""From what a user wishes to a format for each tensor: uniform plans, and the candidates of a
search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from gpt_edge import onnx_contract
from gpt_edge.config import GPTConfig
from gpt_edge.export.formats.tensor_format import FLOAT16, FLOAT32, Plan, Rounding, TensorFormat
from gpt_edge.export.weights.reference_operators import LINEARS

BODY_BITS = {"fp32": 32, "int8": 8, "int8-block": 8, "int4": 4, "int8-dynamic": 32, "mixed": 0}
DEFAULT_BLOCK = {8: 64, 4: 32}
MIXED_BLOCKS = {8: (32, 128), 4: (32, 128)}  # tried where no block size is wished
EMBEDDING, HEAD = "wte.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What `quantize` was asked for; None takes the scheme's default. Raises ValueError for wishes
    that contradict.

    head, embedding: bits, 4, 8, 16 or 32; their blocks are symmetric always. include, exclude:
    shell patterns on parameter names; what is not included, or is excluded, stays float32.
    """

    scheme: str
    block_size: int | None = None
    symmetric: bool = True
    rounding: Rounding | None = None
    head: int | None = None
    embedding: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.scheme not in BODY_BITS:
            raise ValueError(f"scheme must be one of {', '.join(BODY_BITS)}, got {self.scheme!r}")
        if self.scheme == "int8-dynamic" and self.is_special:
            raise ValueError(
                "int8-dynamic is Optimum's: block sizes, rounding, tables and patterns are not for "
                "it"
            )
        if self.scheme == "int8" and (self.block_size is not None or not self.symmetric):
            raise ValueError(
                "int8 has one symmetric scale for each row of weights; blocks are for int8-block, "
                "int4, mixed"
            )
        for name in ("head", "embedding"):
            bits = getattr(self, name)
            if bits is not None:
                TensorFormat(bits)

    @property
    def is_special(self) -> bool:
        """Whether anything but the scheme was wished for."""
        wished = (self.block_size, self.rounding, self.head, self.embedding)
        return (
            any(value is not None for value in wished)
            or not self.symmetric
            or bool(self.include or self.exclude)
        )

    def rounding_of(self, bits: int) -> Rounding:
        """How weights of so many bits are rounded: 4 bits by GPTQ if nothing else is wished, 8 to
        nearest.
        """
        return self.rounding or ("gptq" if bits == 4 else "nearest")


def shapes(config: GPTConfig, graph: str) -> dict[str, tuple[int, int]]:
    """Every weight that a plan names, with its [N, K] in the graph; in the order in which it is
    used.
    """
    width, heads = config.n_embd, config.n_head * onnx_contract.cache_head_size(config, graph)
    of_layer = (
        (3 * heads, width),
        (width, heads),
        (config.inner_size, width),
        (width, config.inner_size),
    )
    found = {EMBEDDING: (config.vocab_size, width)}
    for layer in range(config.n_layer):
        found |= {
            f"h.{layer}.{part}.weight": shape for part, shape in zip(LINEARS, of_layer, strict=True)
        }
    if not config.tied_embeddings:
        found[HEAD] = (config.vocab_size, width)
    return found


def uniform_plan(config: GPTConfig, graph: str, wishes: Wishes) -> Plan:
    """The plan of a scheme other than mixed. Raises ValueError for wishes that this model or graph
    cannot have.
    """
    kept = rounded_names(config, graph, wishes)
    plan: dict[str, TensorFormat] = {}
    for name in shapes(config, graph):
        is_table = name in (EMBEDDING, HEAD)
        form = _table_form(name, config, graph, wishes) if is_table else _body_form(graph, wishes)
        plan[name] = form if name in kept else FLOAT32
    return plan


def candidates(config: GPTConfig, graph: str, wishes: Wishes) -> dict[str, list[TensorFormat]]:
    """For each weight the formats that a search may choose from. Raises as `uniform_plan`."""
    kept = rounded_names(config, graph, wishes)
    found: dict[str, list[TensorFormat]] = {}
    for name in shapes(config, graph):
        is_table = name in (EMBEDDING, HEAD)
        wished = _table_bits(name, config, wishes) if is_table else None
        if name not in kept:
            found[name] = [FLOAT32]
        elif wished is not None:
            found[name] = [
                form for form in _mixed_forms(graph, wishes, is_table) if form.bits == wished
            ] or [FLOAT32]
        else:
            found[name] = _mixed_forms(graph, wishes, is_table)
    return found


def rounded_names(config: GPTConfig, graph: str, wishes: Wishes) -> set[str]:
    """The weights that the patterns leave to be rounded. Raises ValueError for a pattern that
    matches none.
    """
    names = list(shapes(config, graph))
    for pattern in (*wishes.include, *wishes.exclude):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"the pattern {pattern!r} matches no weight; there are {_examples(names)}"
            )
    included = [name for name in names if not wishes.include or _matches(name, wishes.include)]
    return {name for name in included if not _matches(name, wishes.exclude)}


def _examples(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}, ..., {names[-1]}"


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _table_bits(name: str, config: GPTConfig, wishes: Wishes) -> int | None:
    """Bits wished for a table; a tied one is embedding and head at once."""
    if not config.tied_embeddings:
        return wishes.embedding if name == EMBEDDING else wishes.head
    wished = {bits for bits in (wishes.embedding, wishes.head) if bits is not None}
    if len(wished) > 1:
        raise ValueError(
            f"embedding and head are one table in this model: it cannot have {wishes.embedding} "
            f"and {wishes.head} bits"
        )
    return next(iter(wished), None)


def _table_form(name: str, config: GPTConfig, graph: str, wishes: Wishes) -> TensorFormat:
    bits = _table_bits(name, config, wishes)
    usual = 32 if wishes.scheme == "fp32" else 8
    return _form(usual if bits is None else bits, graph, wishes, is_table=True)


def _body_form(graph: str, wishes: Wishes) -> TensorFormat:
    if wishes.scheme == "int8" and graph == "edge":
        return _by_row(wishes)
    return _form(BODY_BITS[wishes.scheme], graph, wishes, is_table=False)


def _by_row(wishes: Wishes) -> TensorFormat:
    return TensorFormat(8, activations="row", rounding=wishes.rounding_of(8))


def _form(
    bits: int, graph: str, wishes: Wishes, *, is_table: bool, block_size: int | None = None
) -> TensorFormat:
    """A format of the block-wise kind."""
    if bits >= 16:
        return TensorFormat(bits)
    size = block_size or wishes.block_size or DEFAULT_BLOCK[bits]
    rounding = wishes.rounding_of(bits)
    # rows that are looked up have no input to be compensated for
    if is_table and rounding == "gptq":
        rounding = "scale-search"
    if graph == "portable":
        if not wishes.symmetric:
            raise ValueError(
                "the portable graph has no zero points: --asymmetric is for the edge graph"
            )
        if is_table and bits == 4:
            raise ValueError(
                "embedding and head of the portable graph have 8, 16 or 32 bits, not 4"
            )
        is_by_row = is_table or wishes.scheme == "int8"
        return TensorFormat(bits, 0 if is_by_row else size, True, rounding, "float")
    return TensorFormat(bits, size, wishes.symmetric or is_table, rounding)


def _mixed_forms(graph: str, wishes: Wishes, is_table: bool) -> list[TensorFormat]:
    """Cheapest first. A table of the portable graph has at least 8 bits.

    8 bits with float activations are left out: MatMulNBits takes five times as long for them as
    MatMul for float16.
    """
    found: list[TensorFormat] = []
    for bits in (4, 8):
        if graph == "portable" and is_table and bits == 4:
            continue
        if (
            graph == "edge"
            and bits == 8
            and not is_table
            and not wishes.block_size
            and wishes.symmetric
        ):
            found.append(_by_row(wishes))
        sizes = (wishes.block_size,) if wishes.block_size else tuple(reversed(MIXED_BLOCKS[bits]))
        for size in sizes:
            form = _form(bits, graph, wishes, is_table=is_table, block_size=size)
            found += [form] if form not in found else []
        if bits == 4 and not is_table and form.activations != "float":
            found.append(replace(form, activations="float"))
    return [*found, FLOAT16]


def scheme_plan(config: GPTConfig, graph: str, scheme: str) -> Plan:
    """What `export` makes of a scheme: everything rounded to nearest."""
    return uniform_plan(
        config, graph, Wishes(scheme, rounding=None if scheme == "int8-dynamic" else "nearest")
    )


def operator_counts(config: GPTConfig, graph: str, plan: Plan) -> dict[str, int]:
    """How many nodes of each telling operator a graph with this plan holds; as
    `onnx_contract.operators` for plain schemes.
    """
    head = EMBEDDING if config.tied_embeddings else HEAD
    body = [form for name, form in plan.items() if name not in (EMBEDDING, HEAD)]
    n_float = sum(form.is_float for form in body)
    n_row = sum(form.activations == "row" for form in body)
    counts = onnx_contract.operators(config, graph, "fp32")
    if graph == "portable":
        return counts | {"DequantizeLinear": len(body) - n_float + (not plan[head].is_float)}
    return counts | {
        "MatMulIntegerToFloat": n_row,
        "QuantizeLinear": n_row,
        "MatMulNBits": len(body) - n_float - n_row + (not plan[head].is_float),
        "GatherBlockQuantized": int(not plan[EMBEDDING].is_float),
        "MatMul": n_float,
        "FusedMatMul": int(plan[head].is_float),
    }


def describe(plan: Plan) -> Mapping[str, int]:
    """How many tensors have each format, by label, most frequent first."""
    counts: dict[str, int] = {}
    for form in plan.values():
        counts[form.label] = counts.get(form.label, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

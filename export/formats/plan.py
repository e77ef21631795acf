"""From a user's options to a format for each tensor: uniform plans, and the candidates of
a search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from gpt_edge import onnx_contract
from gpt_edge.config import GPTConfig
from gpt_edge.export.formats.tensor_format import FLOAT16, FLOAT32, Plan, Rounding, TensorFormat
from gpt_edge.export.weights.reference_operators import LINEARS
from gpt_edge.schemes import FP32, SCHEMES

DEFAULT_BLOCK = {8: 64, 4: 32}
TABLE_BITS = 8  # of embedding and head, in every quantized scheme
MIXED_BLOCKS = {8: (32, 128), 4: (32, 128)}  # tried where no block size is given
EMBEDDING, HEAD = "wte.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """What a caller of `quantize` asked for; None takes the scheme's default. Raises ValueError for
    options that contradict each other.

    scheme: a name in `schemes.SCHEMES`. head, embedding: bits, 4, 8, 16 or 32; their blocks are
    always symmetric. include, exclude: shell patterns on parameter names; what is not included, or
    is excluded, stays float32.
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
        scheme = SCHEMES.get(self.scheme)
        if scheme is None:
            raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {self.scheme!r}")
        if scheme.by_optimum and self.is_special:
            raise ValueError(
                f"{scheme.name} is Optimum's: block sizes, rounding, tables and patterns do not "
                "apply to it"
            )
        if scheme.activations == "row" and (self.block_size is not None or not self.symmetric):
            by_block = ("block", "any")
            others = [other.name for other in SCHEMES.values() if other.activations in by_block]
            raise ValueError(
                f"{scheme.name} has one symmetric scale for each row of weights; blocks are for "
                f"{', '.join(others)}"
            )
        for name in ("head", "embedding"):
            bits = getattr(self, name)
            if bits is not None:
                TensorFormat(bits)

    @property
    def is_special(self) -> bool:
        """Whether anything but the scheme was given."""
        given = (self.block_size, self.rounding, self.head, self.embedding)
        return (
            any(value is not None for value in given)
            or not self.symmetric
            or bool(self.include or self.exclude)
        )

    def rounding_of(self, bits: int) -> Rounding:
        """How weights of so many bits are rounded: by default 4 bits by GPTQ, 8 to nearest."""
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


def uniform_plan(config: GPTConfig, graph: str, options: QuantizeOptions) -> Plan:
    """The plan of a scheme other than mixed. Raises ValueError for options that this model or
    graph cannot have.
    """
    kept = rounded_names(config, graph, options)
    plan: dict[str, TensorFormat] = {}
    for name in shapes(config, graph):
        is_table = name in (EMBEDDING, HEAD)
        form = _table_form(name, config, graph, options) if is_table else _body_form(graph, options)
        plan[name] = form if name in kept else FLOAT32
    return plan


def candidates(
    config: GPTConfig, graph: str, options: QuantizeOptions
) -> dict[str, list[TensorFormat]]:
    """For each weight the formats that a search may choose from. Raises as `uniform_plan`."""
    kept = rounded_names(config, graph, options)
    found: dict[str, list[TensorFormat]] = {}
    for name in shapes(config, graph):
        is_table = name in (EMBEDDING, HEAD)
        table_bits = _table_bits(name, config, options) if is_table else None
        if name not in kept:
            found[name] = [FLOAT32]
        elif table_bits is not None:
            found[name] = [
                form for form in _mixed_forms(graph, options, is_table) if form.bits == table_bits
            ] or [FLOAT32]
        else:
            found[name] = _mixed_forms(graph, options, is_table)
    return found


def rounded_names(config: GPTConfig, graph: str, options: QuantizeOptions) -> set[str]:
    """The weights that the patterns leave to be rounded. Raises ValueError for a pattern that
    matches none.
    """
    names = list(shapes(config, graph))
    for pattern in (*options.include, *options.exclude):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"the pattern {pattern!r} matches no weight; there are {_examples(names)}"
            )
    included = [name for name in names if not options.include or _matches(name, options.include)]
    return {name for name in included if not _matches(name, options.exclude)}


def _examples(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}, ..., {names[-1]}"


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _table_bits(name: str, config: GPTConfig, options: QuantizeOptions) -> int | None:
    """Bits given for a table; a tied one is embedding and head at once."""
    if not config.tied_embeddings:
        return options.embedding if name == EMBEDDING else options.head
    given = {bits for bits in (options.embedding, options.head) if bits is not None}
    if len(given) > 1:
        raise ValueError(
            f"embedding and head are one table in this model: it cannot have {options.embedding} "
            f"and {options.head} bits"
        )
    return next(iter(given), None)


def _table_form(name: str, config: GPTConfig, graph: str, options: QuantizeOptions) -> TensorFormat:
    bits = _table_bits(name, config, options)
    if bits is None:
        bits = 32 if SCHEMES[options.scheme].is_float else TABLE_BITS
    return _form(bits, graph, options, is_table=True)


def _body_form(graph: str, options: QuantizeOptions) -> TensorFormat:
    scheme = SCHEMES[options.scheme]
    if scheme.activations == "row" and graph == "edge":
        return _by_row(options)
    assert scheme.bits is not None, f"{scheme.name} has no uniform plan"
    # Optimum quantizes the layers of a graph whose weights are floats
    bits = 32 if scheme.by_optimum else scheme.bits
    return _form(bits, graph, options, is_table=False)


def _by_row(options: QuantizeOptions) -> TensorFormat:
    return TensorFormat(8, activations="row", rounding=options.rounding_of(8))


def _form(
    bits: int,
    graph: str,
    options: QuantizeOptions,
    *,
    is_table: bool,
    block_size: int | None = None,
) -> TensorFormat:
    """A format of the block-wise kind."""
    if bits >= 16:
        return TensorFormat(bits)
    size = block_size or options.block_size or DEFAULT_BLOCK[bits]
    rounding = options.rounding_of(bits)
    # rows that are looked up have no input to be compensated for
    if is_table and rounding == "gptq":
        rounding = "scale-search"
    if graph == "portable":
        if not options.symmetric:
            raise ValueError(
                "the portable graph has no zero points: --asymmetric is for the edge graph"
            )
        if is_table and bits == 4:
            raise ValueError(
                "embedding and head of the portable graph have 8, 16 or 32 bits, not 4"
            )
        is_by_row = is_table or SCHEMES[options.scheme].activations == "row"
        return TensorFormat(bits, 0 if is_by_row else size, True, rounding, "float")
    return TensorFormat(bits, size, options.symmetric or is_table, rounding)


def _mixed_forms(graph: str, options: QuantizeOptions, is_table: bool) -> list[TensorFormat]:
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
            and not options.block_size
            and options.symmetric
        ):
            found.append(_by_row(options))
        sizes = (options.block_size,) if options.block_size else tuple(reversed(MIXED_BLOCKS[bits]))
        for size in sizes:
            form = _form(bits, graph, options, is_table=is_table, block_size=size)
            found += [form] if form not in found else []
        if bits == 4 and not is_table and form.activations != "float":
            found.append(replace(form, activations="float"))
    return [*found, FLOAT16]


def scheme_plan(config: GPTConfig, graph: str, scheme: str) -> Plan:
    """What `export` stores for a scheme: everything rounded to nearest."""
    rounding: Rounding | None = None if SCHEMES[scheme].by_optimum else "nearest"
    return uniform_plan(config, graph, QuantizeOptions(scheme, rounding=rounding))


def operator_counts(config: GPTConfig, graph: str, plan: Plan) -> dict[str, int]:
    """How many nodes of each characteristic operator a graph with this plan holds; as
    `onnx_contract.operators` for plain schemes.
    """
    head = EMBEDDING if config.tied_embeddings else HEAD
    body = [form for name, form in plan.items() if name not in (EMBEDDING, HEAD)]
    n_float = sum(form.is_float for form in body)
    n_row = sum(form.activations == "row" for form in body)
    counts = onnx_contract.operators(config, graph, FP32.name)
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

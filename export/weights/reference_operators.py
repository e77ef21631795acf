"""The operators of the reference in the order in which it computes them: what each reads, and which
parameters it holds.

An operator is named as its module in `GPT`: `attn.c_attn`, `ln_1`; three have no module and are
named for what they compute: `attn.attention`, `mlp.activation`, and the residual sums. Knows
nothing of ONNX.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt_edge.config import GPTConfig

PRE_NORM = (
    "ln_1", "attn.c_attn", "attn.attention", "attn.c_proj", "attn.residual",
    "ln_2", "mlp.c_fc", "mlp.activation", "mlp.c_proj", "mlp.residual",
)  # fmt: skip
POST_NORM = (
    "attn.c_attn", "attn.attention", "attn.c_proj", "attn.residual", "ln_1",
    "mlp.c_fc", "mlp.activation", "mlp.c_proj", "mlp.residual", "ln_2",
)  # fmt: skip
LINEARS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


@dataclass(frozen=True, slots=True)
class ReferenceOperator:
    """One operator of the reference. layer is None for the embedding, ln_f and the head: lm_head,
    or task_head of a fine-tuned model.
    """

    layer: int | None
    name: str

    def __str__(self) -> str:
        return self.name if self.layer is None else f"layer {self.layer}, {self.name}"


# what a task's head reads: the states at the extract tokens, of similarity the sums of pairs
TASK_STATES = ReferenceOperator(None, "task_head.input")


def reference_operators(config: GPTConfig) -> list[ReferenceOperator]:
    """Every operator of the reference in the order in which it is computed."""
    names = PRE_NORM if config.norm == "pre" else POST_NORM
    layers = [ReferenceOperator(layer, name) for layer in range(config.n_layer) for name in names]
    final = [ReferenceOperator(None, "ln_f")] if config.norm == "pre" else []
    head = "lm_head" if config.n_label is None else "task_head"
    return [
        ReferenceOperator(None, "embedding"),
        *layers,
        *final,
        ReferenceOperator(None, head),
    ]


def inputs_of(operator: ReferenceOperator, config: GPTConfig) -> tuple[ReferenceOperator, ...]:
    """The operators whose results this one reads; none for the embedding. Of a sum, the branch
    comes first.
    """
    is_pre = config.norm == "pre"
    layer = operator.layer
    if layer is None:
        last = config.n_layer - 1
        if operator.name == "ln_f":
            return (ReferenceOperator(last, "mlp.residual"),)
        if operator.name == "lm_head":
            head_input = (None, "ln_f") if is_pre else (last, "ln_2")
            return (ReferenceOperator(*head_input),)
        return (TASK_STATES,) if operator.name == "task_head" else ()

    def here(name: str) -> ReferenceOperator:
        return ReferenceOperator(layer, name)

    layer_output = "mlp.residual" if is_pre else "ln_2"
    first = (None, "embedding") if layer == 0 else (layer - 1, layer_output)
    layer_input = ReferenceOperator(*first)
    middle = here("attn.residual" if is_pre else "ln_1")
    return {
        "ln_1": (layer_input if is_pre else here("attn.residual"),),
        "attn.c_attn": (here("ln_1") if is_pre else layer_input,),
        "attn.attention": (here("attn.c_attn"),),
        "attn.c_proj": (here("attn.attention"),),
        "attn.residual": (here("attn.c_proj"), layer_input),
        "ln_2": (here("attn.residual") if is_pre else here("mlp.residual"),),
        "mlp.c_fc": (here("ln_2") if is_pre else middle,),
        "mlp.activation": (here("mlp.c_fc"),),
        "mlp.c_proj": (here("mlp.activation"),),
        "mlp.residual": (here("mlp.c_proj"), middle),
    }[operator.name]


def parameters_of(operator: ReferenceOperator, config: GPTConfig) -> tuple[str, ...]:
    """Names in `GPT.state_dict()` of the weights that an operator holds, a bias second; of the
    embedding both tables.
    """
    if operator.name == "embedding":
        return ("wte.weight", "wpe.weight")
    if operator.name == "lm_head":
        return ("wte.weight" if config.tied_embeddings else "lm_head.weight",)
    if operator.name not in (*LINEARS, "ln_1", "ln_2", "ln_f", "task_head"):
        return ()
    layer = "" if operator.layer is None else f"h.{operator.layer}."
    return (f"{layer}{operator.name}.weight", f"{layer}{operator.name}.bias")

"""A LoRA adapter that PEFT saved, merged into the weights that it was trained on, tensor by tensor.

W' = W + scale * B A, scale = alpha / r, or alpha / sqrt(r) of rsLoRA. Tensors that the adapter
stores as a whole (biases, modules_to_save) replace the base's. Source: Hu et al. 2021 (arXiv
2106.09685), section 4.1; peft, tuners/lora. Only what changes nothing but existing weights is
merged: DoRA, other methods than LoRA, new heads, and beginnings that change the base (PiSSA) are
refused.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.safetensors_file import open_safetensors
from gpt_edge.reference.importers.settings import CheckpointSettings, read_settings
from gpt_edge.reference.importers.sources import (
    FLOAT_DTYPES,
    TensorInfo,
    TensorSource,
    check_finite,
    printable,
)
from gpt_edge.reference.importers.tensor_map import Checkpoint
from gpt_edge.reference.importers.tensor_names import TRANSFORMER
from gpt_edge.reference.importers.torch_pickle import open_torch_tensors

CONFIG_FILE = "adapter_config.json"
_PREFIX = "base_model.model."
# of a linear layer's weight, and of an embedding
_PAIRS = {".lora_A.weight": ".lora_B.weight", ".lora_embedding_A": ".lora_embedding_B"}
# Others, such as pissa, olora, corda and loftq, begin by taking a part out of the base's weights.
_INITIAL = (None, True, False, "gaussian", "eva", "orthogonal")
# settings of PEFT 0.21 that add other tensors, or read those of LoRA in another way
_OTHER_VARIANTS = (
    "use_dora",
    "alora_invocation_tokens",
    "use_qalora",
    "layer_replication",
    "lora_bias",
    "trainable_token_indices",
    "use_bdlora",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "arrow_config",
)
_LAYER = re.compile(r"\.(\d+)(?=\.)")
_MERGE_HINT = (
    "merge it with peft: model.merge_and_unload().save_pretrained(FOLDER), and export that"
)


@dataclass(frozen=True, slots=True)
class Product:
    """The two matrices of one weight, by their names in the adapter: A [r, in], B [out, r]."""

    a: str
    b: str
    scale: float
    is_transposed: bool  # the base stores [in, out]


@dataclass(frozen=True)
class MergedTensors:
    """A TensorSource with an adapter's changes."""

    base: TensorSource
    adapter: TensorSource
    products: Mapping[str, Product]  # by the name of the base's weight
    replacements: Mapping[str, str]  # name in the base to name in the adapter

    @property
    def where(self) -> str:
        """As TensorSource.where."""
        return f"{self.base.where} with {self.adapter.where}"

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """As TensorSource.infos."""
        return self.base.infos

    def read(self, name: str) -> FloatArray:
        """As TensorSource.read. Raises NumericError for NaN or infinite weights of the adapter."""
        if name in self.replacements:
            weight = self._read_adapter(self.replacements[name])
        else:
            weight = self.base.read(name)
        if name not in self.products:
            return weight
        product = self.products[name]
        delta = self._read_adapter(product.b) @ self._read_adapter(product.a)  # [out, in]
        delta *= np.float32(product.scale)
        stored = delta.T if product.is_transposed else delta
        merged: FloatArray = weight + stored.reshape(weight.shape)
        return merged

    def release(self, name: str) -> None:
        """As TensorSource.release."""
        self.base.release(name)

    def _read_adapter(self, name: str) -> FloatArray:
        array = self.adapter.read(name)
        check_finite(array, self.adapter.where, name)
        return array


def merge_adapter(base: Checkpoint, folder: Path) -> Checkpoint:
    """`base` with the adapter in `folder` merged. Nothing large is read.

    Raises CheckpointError for an adapter of another kind, one whose tensors the base does not have,
    or of other shapes or fewer layers, and one that would change a tied embedding and its head
    apart.
    """
    _check_folder(folder)
    settings = read_settings(folder / CONFIG_FILE)
    _refuse_other_methods(settings)
    adapter = _open_tensors(folder)
    are_transposed = {
        name: origin.is_transposed for origin in base.origins.values() for name in origin.names
    }
    products: dict[str, Product] = {}
    replacements: dict[str, str] = {}
    for name in adapter.infos:
        plain = name.removeprefix(_PREFIX).replace(".base_layer.", ".")
        if name.endswith(tuple(_PAIRS.values())):
            continue
        if a := next((end for end in _PAIRS if name.endswith(end)), None):
            module = plain.removesuffix(a)
            stored = _stored_name(base, f"{module}.weight", name, adapter.where)
            other = name.removesuffix(a) + _PAIRS[a]
            # an embedding is stored [tokens, width], its product is [width, tokens]
            is_transposed = are_transposed.get(stored, False) or "embedding" in a
            products[stored] = Product(name, other, _scale(settings, module), is_transposed)
        else:
            replacements[_stored_name(base, plain, name, adapter.where)] = name
    _check_shapes(base, adapter, products, replacements)
    if not products and not replacements:
        raise CheckpointError(f"{adapter.where} holds no tensors")
    _check_layers(base, settings, adapter.where, products)
    source = MergedTensors(base.source, adapter, products, replacements)
    note = f"merged a LoRA adapter into {len(products)} matrices"
    return dataclasses.replace(base, source=source, notes=(*base.notes, note))


def _check_folder(folder: Path) -> None:
    """Raise CheckpointError for a folder that is no adapter's, naming the one below that is."""
    if (folder / CONFIG_FILE).is_file():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder", hint="expected a PEFT adapter's folder")
    inner = sorted(path.parent for path in folder.glob(f"*/{CONFIG_FILE}"))
    hint = f"take {inner[-1]}" if inner else "expected a PEFT adapter's folder"
    raise CheckpointError(f"{folder} holds no {CONFIG_FILE}", hint=hint)


def _open_tensors(folder: Path) -> TensorSource:
    if (folder / "adapter_model.safetensors").is_file():
        return open_safetensors(folder / "adapter_model.safetensors")
    if (folder / "adapter_model.bin").is_file():
        return open_torch_tensors(folder / "adapter_model.bin")
    raise CheckpointError(f"{folder} holds no adapter_model.safetensors")


def _refuse_other_methods(settings: CheckpointSettings) -> None:
    method = settings.values.get("peft_type")
    if method != "LORA":
        raise CheckpointError(
            f"{settings.where} says peft_type {method!a:.40}, expected 'LORA'", hint=_MERGE_HINT
        )
    for name in _OTHER_VARIANTS:
        if settings.values.get(name):
            raise CheckpointError(
                f"{settings.where} sets {name}, which is not merged here", hint=_MERGE_HINT
            )
    initial = settings.values.get("init_lora_weights")
    if initial not in _INITIAL:
        raise CheckpointError(
            f"{settings.where} says init_lora_weights {initial!a:.40}, which changes the base's "
            "weights first",
            hint=_MERGE_HINT,
        )


def _stored_name(base: Checkpoint, wanted: str, name: str, where: str) -> str:
    """The base's tensor that the adapter means: with or without "transformer."."""
    # peft leaves the head of a tied pair as it was, and a classifier has none
    is_tied = base.config.tied_embeddings and base.task is None
    for candidate in (wanted, wanted.removeprefix(TRANSFORMER), TRANSFORMER + wanted):
        if candidate in base.source.infos and candidate != base.tied_copy:
            if is_tied and candidate == base.origins["wte.weight"].names[0]:
                break
            return candidate
    raise CheckpointError(
        f"{where}: {printable(name)} changes no weight of {base.path} by itself", hint=_MERGE_HINT
    )


def _scale(settings: CheckpointSettings, module: str) -> float:
    """alpha / r of a module, by the patterns of the config."""
    rank = _by_pattern(settings, "rank_pattern", module, settings.number("r", 8))
    alpha = _by_pattern(settings, "alpha_pattern", module, settings.number("lora_alpha", 8))
    if not rank > 0:
        raise CheckpointError(f"{settings.where}: r is {rank:g}, expected at least 1")
    return alpha / (math.sqrt(rank) if settings.flag("use_rslora", False) else rank)


def _by_pattern(settings: CheckpointSettings, name: str, module: str, default: float) -> float:
    """The value of the first key that is the module's name or its end, a regular expression in
    peft; here only plain names are.
    """
    patterns = settings.values.get(name) or {}
    if not isinstance(patterns, dict):
        raise CheckpointError(f"{settings.where}: {name} must be an object")
    for key, value in patterns.items():
        plain = str(key).removeprefix("^")
        if not re.fullmatch(r"[\w.]+", plain) or isinstance(value, bool):
            raise CheckpointError(
                f"{settings.where}: {name} has the pattern {key!a:.60}, expected a plain name",
                hint=_MERGE_HINT,
            )
        if (module == plain or module.endswith(f".{plain}")) and isinstance(value, int | float):
            return float(value)
    return default


def _check_shapes(
    base: Checkpoint,
    adapter: TensorSource,
    products: Mapping[str, Product],
    replacements: Mapping[str, str],
) -> None:
    infos, stored = adapter.infos, base.source.infos
    for info_name, info in infos.items():
        if info.dtype not in FLOAT_DTYPES:
            raise CheckpointError(
                f"{adapter.where}: {printable(info_name)} has dtype {info.dtype}, expected one of "
                f"{', '.join(FLOAT_DTYPES)}"
            )
    for name, product in products.items():
        a = infos[product.a].shape
        b = infos[product.b].shape if product.b in infos else ()
        shape = stored[name].shape[-2:]
        wanted = shape[::-1] if product.is_transposed else shape  # [out, in]
        if len(a) != 2 or len(b) != 2 or a[0] != b[1] or (b[0], a[1]) != wanted:
            raise CheckpointError(
                f"{adapter.where}: the matrices of {printable(name)} have shapes {list(b)} and "
                f"{list(a)}, their product must be {list(wanted)}",
                hint="is this the base that the adapter was trained on?",
            )
    for name, replacement in replacements.items():
        if infos[replacement].shape != stored[name].shape:
            raise CheckpointError(
                f"{adapter.where}: {printable(replacement)} has shape "
                f"{list(infos[replacement].shape)}, the base {list(stored[name].shape)}",
                hint=_MERGE_HINT,
            )
    orphans = [name for name in infos if name.endswith(tuple(_PAIRS.values()))]
    used = {product.b for product in products.values()}
    if lost := [name for name in orphans if name not in used]:
        raise CheckpointError(f"{adapter.where}: {printable(lost[0])} has no lora_A beside it")


def _check_layers(
    base: Checkpoint, settings: CheckpointSettings, where: str, products: Mapping[str, Product]
) -> None:
    """Raise CheckpointError where a module has matrices in some layers of the base and none in
    another, though the config leaves none out: the base is of another depth.
    """
    values = settings.values
    if values.get("layers_to_transform") is not None or values.get("exclude_modules"):
        return
    targets = values.get("target_modules")
    if not isinstance(targets, list):  # a regular expression
        return
    plain = {target for target in targets if isinstance(target, str) and "." not in target}
    changed = {_LAYER.sub("", name, count=1) for name in products if _LAYER.search(name)}
    for name in base.source.infos:
        module = name.removesuffix(".weight")
        if module == name or module.rpartition(".")[2] not in plain or name in products:
            continue
        if _LAYER.search(name) and _LAYER.sub("", name, count=1) in changed:
            raise CheckpointError(
                f"{where} holds no matrices for {printable(name)}",
                hint="is this the base that the adapter was trained on?",
            )

"""Low-rank factors beside a network's frozen weights, by peft."""

import copy
import re
from typing import Any

from pipeline.errors import ConfigError
from pipeline.finetuning.config import TrainingConfig


class Lora:
    """Changes `module` in place: the factors and the heads alone are trained."""

    def __init__(self, module: Any, training: TrainingConfig) -> None:
        """Raises ConfigError where peft is not installed, or where no layer has one of the names."""
        try:
            import peft  # noqa: PLC0415  (an extra, for those who use it)
        except ImportError as error:
            raise ConfigError(
                "training.use_lora needs peft: pip install 'rayrank[peft]'", field="training.use_lora"
            ) from error
        heads = _heads(module)
        targets = training.target_modules
        settings = peft.LoraConfig(
            r=training.lora_rank,
            lora_alpha=training.lora_alpha,
            lora_dropout=training.lora_dropout,
            target_modules="all-linear" if targets is None else list(targets),
            exclude_modules=rf"^({'|'.join(map(re.escape, heads))})(\..*)?$" if heads else None,
        )
        names = [name for name, _ in module.named_modules() if not _is_of(name, heads)]
        for target in targets or ():
            if not any(f".{name}".endswith(f".{target}") for name in names):
                raise ConfigError(
                    f"training.target_modules: no layer of the backbone ends in {target}",
                    field="training.target_modules",
                )
        tied = getattr(module.config, "tie_word_embeddings", False)
        try:
            self._wrapped = peft.get_peft_model(module, settings)
        except ValueError as error:  # of a layer that is not linear, say
            raise ConfigError(
                f"training.target_modules: peft takes none of them: {error}", field="training.target_modules"
            ) from error
        for name, parameter in module.named_parameters():
            # A head that shares its weights with the embeddings would train all of those.
            if _is_of(name, heads) and "lora_" not in name and not (tied and name.startswith("lm_head")):
                parameter.requires_grad_(requires_grad=True)

    def merged(self) -> Any:
        """A copy with the factors merged in; training goes on with the one at hand."""
        return copy.deepcopy(self._wrapped).merge_and_unload()


def _heads(module: Any) -> list[str]:
    """What stands on the backbone. BERT's pooler does, too: it is random where a checkpoint has none."""
    backbone = module.base_model_prefix
    heads = [name for name, _ in module.named_children() if name != backbone]
    pooler = f"{backbone}.pooler"
    return [*heads, *(name for name, _ in module.named_modules() if name == pooler)]


def _is_of(name: str, modules: list[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)

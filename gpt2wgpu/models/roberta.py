"""RoBERTa (Liu et al. 2019), XLM-R (Conneau et al. 2019) and CamemBERT (Martin et al. 2019): BERT whose positions count from
pad + 1 and skip padding tokens that occur in a text.

Follows `RobertaModel` of `transformers`.
"""

from dataclasses import dataclass, replace
from typing import Self

from .bert import BertConfig
from .fields import Fields


@dataclass(frozen=True)
class RobertaConfig(BertConfig):
    pad: int | None = 1

    title, model, tokenizer = "RoBERTa", "RobertaModel", "roberta"

    @classmethod
    def read(cls, fields: Fields) -> Self:
        found = replace(super().read(fields), pad=(pad := fields.integer("pad_token_id", default=1, least=0)))
        if found.usable_length < 1:
            raise fields.refuse("max_position_embeddings", f"more than pad_token_id + 1, which is {pad + 1}")
        return found


class XLMRobertaConfig(RobertaConfig):
    title, model, tokenizer = "XLM-R", "XLMRobertaModel", "xlm-roberta"


class CamembertConfig(RobertaConfig):
    title, model, tokenizer = "CamemBERT", "CamembertModel", "camembert"

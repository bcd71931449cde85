"""One file per architecture: its configuration, its graph, and how the files hold its weights."""

import json

from ..graph.ops.quantized import GROUP
from .architecture import Architecture
from .bert import BertConfig
from .distilbert import DistilBertConfig
from .fields import Fields
from .gpt2 import GPT2Config
from .gpt_neo import GPTNeoConfig
from .modernbert import ModernBertConfig
from .mpnet import MPNetConfig
from .nomic_bert import NomicBertConfig
from .qwen3 import Qwen3Config
from .roberta import CamembertConfig, RobertaConfig, XLMRobertaConfig
from .unused import UNUSED

__all__ = [
    "ARCHITECTURES",
    "INT8",
    "Architecture",
    "read_config",
]

ARCHITECTURES: dict[str, type[Architecture]] = {  # by the model_type of config.json
    "gpt2": GPT2Config,
    "bert": BertConfig,
    "roberta": RobertaConfig,
    "xlm-roberta": XLMRobertaConfig,
    "camembert": CamembertConfig,
    "modernbert": ModernBertConfig,
    "nomic_bert": NomicBertConfig,
    "qwen3": Qwen3Config,
    "distilbert": DistilBertConfig,
    "mpnet": MPNetConfig,
    "gpt_neo": GPTNeoConfig,
}

# The quantization_config of a folder whose matrices are int8. It names no quant_method: `transformers` raises without one,
# but takes the integers for weights if it does not know the method.
INT8 = {"format": "gpt2wgpu-int8", "group_size": GROUP}


def read_config(fields: Fields) -> tuple[str, Architecture]:
    """The model_type and its configuration, from config.json. Raises UserError for a model that our graphs do not compute."""
    model_type = fields.text("model_type", default="")
    if model_type not in ARCHITECTURES:
        raise fields.refuse("model_type", f"one of {', '.join(ARCHITECTURES)}: other architectures are not supported")
    architecture = ARCHITECTURES[model_type]
    if fields.flag("is_decoder", default=False) and not architecture.decoder:
        raise fields.refuse("is_decoder", "false: this architecture is supported as an encoder only")
    for name in ("add_cross_attention", "is_encoder_decoder", "use_bidirectional_attention"):
        if fields.flag(name, default=False):
            raise fields.refuse(name, "false: only plain encoders and decoders of one text are supported")
    for name in ("pruned_heads", "per_layer_config"):
        if fields.object(name, default={}):
            raise fields.refuse(name, "none: all layers have to be alike")
    if "AutoModel" in fields.object("auto_map", default={}) and model_type != "nomic_bert":  # whose code is known
        raise fields.refuse("auto_map", "none: this model needs the repository's own code, which is never run")
    if fields.object("quantization_config", default=INT8) != INT8:
        raise fields.refuse("quantization_config", f"none, or {json.dumps(INT8)}: save the model in f32 or f16")
    config = architecture.read(fields)
    fields.refuse_unknown(UNUSED.union(architecture.unused))
    return model_type, config

"""The settings in a sentence-transformers folder: how texts are prepared and vectors compared.

Supported: the format of version 6.2, and the older ones that it reads.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, is_text, show
from ..graph.ops.pooling import SIMILARITIES
from ..models.fields import Fields, is_absent, read_fields

# the first of these that says anything counts; old releases named it after the architecture
LENGTH_FILES = tuple(
    f"sentence_{name}_config.json" for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
SENTENCE_FILE = "config_sentence_transformers.json"
# arguments that say where files come from; sentence-transformers sets most of them itself
HUB_ARGUMENTS = {"cache_dir", "code_revision", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token"}
HUB_ARGUMENTS |= {"trust_remote_code", "use_auth_token"}
# arguments of a model that change its speed, its memory or its rounding
MODEL_ARGUMENTS = {"add_pooling_layer", "attn_implementation", "device_map", "dtype", "low_cpu_mem_usage", "torch_dtype"}
MODEL_ARGUMENTS |= {"use_safetensors"}
# fields of config.json that can be overridden: no other field is computed from them
HEAD_COUNTS = {"num_attention_heads", "n_head", "n_heads", "num_heads"}
CHANGEABLE = HEAD_COUNTS | {"activation", "activation_function", "hidden_act", "hidden_activation", "layer_norm_eps"}
CHANGEABLE |= {"layer_norm_epsilon", "norm_eps", "rms_norm_eps", "pad_token_id"}
CHANGEABLE |= {"scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"}


@dataclass(frozen=True)
class TransformerSettings:
    """sentence_bert_config.json"""

    max_seq_length: int | None  # tokens
    lower_case: bool
    tokenizer: dict[str, Any]  # arguments that override the tokenizer's files
    config: dict[str, Any]  # fields that override those of config.json

    def change(self, config: Fields) -> Fields:
        """config.json with the fields that this file overrides. Raises UserError."""
        values = {name: v for name, v in config.values.items() if not (name in HEAD_COUNTS and HEAD_COUNTS & self.config.keys())}
        return Fields(config.path, values | self.config)

    def length(self, folder: Path, limit: int) -> int:
        """Tokens of a text that are read: what this file says, or the tokenizer's; the position table has room for `limit`."""
        given = Fields(folder / "sentence_bert_config.json", self.tokenizer)
        if not given.present("model_max_length"):
            if self.max_seq_length is not None:
                return min(self.max_seq_length, limit)
            given = read_fields(folder / "tokenizer_config.json", optional=True)
        name = next((name for name in ("model_max_length", "max_len") if given.present(name)), None)
        if name is None:
            return limit
        found = given.value(name)  # an integer, or something like 1e30 for "no limit"
        if not isinstance(found, int | float) or isinstance(found, bool) or not found >= 1:
            raise given.refuse(name, "a positive integer")
        return math.floor(min(found, limit))


def read_transformer_settings(folder: Path, sentence_model: bool) -> TransformerSettings:
    """The settings of the transformer in `folder`; those of a plain model without modules.json are defaults."""
    if not sentence_model:
        check_chat_template(folder)
        return TransformerSettings(None, False, {}, {})
    fields = find_length_file(folder)
    check_transformer(fields)
    config = read_arguments(fields, "config_args", "config_kwargs")
    for name in config:
        if name not in CHANGEABLE:
            advice = "write it into config.json instead"
            raise UserError(f"{show(fields.path)}: config_kwargs holds {show(name)}, which is not supported: {advice}")
    settings = TransformerSettings(
        max_seq_length=fields.integer("max_seq_length") if fields.present("max_seq_length") else None,
        lower_case=fields.flag("do_lower_case", default=False),
        tokenizer=read_arguments(fields, "tokenizer_args", "processor_kwargs"),
        config=config,
    )
    fields.refuse_unknown(("unpad_inputs",))  # only saves padding
    return settings


def find_length_file(folder: Path) -> Fields:
    """The first of LENGTH_FILES in a folder that says anything; without any field where none does. Raises UserError."""
    found = (read_fields(folder / name, optional=True) for name in LENGTH_FILES)
    return next((fields for fields in found if fields.values), Fields(folder / LENGTH_FILES[0], {}))


def check_transformer(fields: Fields) -> None:
    """Raise UserError for a field of sentence_bert_config.json that asks for what is not supported."""
    for name in ("query_length", "document_length", "query_expansion"):
        if fields.present(name):
            raise fields.refuse(name, "none: models with one vector per token are not supported")
    if fields.present("tokenizer_name_or_path"):
        raise fields.refuse("tokenizer_name_or_path", "none: the tokenizer has to be in the folder")
    if fields.text("transformer_task", default="feature-extraction") != "feature-extraction":
        raise fields.refuse("transformer_task", '"feature-extraction"')
    if fields.text("module_output_name", default="token_embeddings") != "token_embeddings":
        raise fields.refuse("module_output_name", '"token_embeddings"')
    options = fields.object("processing_kwargs", default={})
    if any(options.get(kind) for kind in ("text", "common")):
        raise fields.refuse("processing_kwargs", "none: options for the tokenizer are not supported")
    check_modalities(fields)
    for name in read_arguments(fields, "model_args", "model_kwargs"):
        if name not in MODEL_ARGUMENTS:
            raise UserError(f"{show(fields.path)}: model_kwargs holds {show(name)}, which is not supported")


def set_length(values: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The values of sentence_bert_config.json with another limit, also in an argument of the tokenizer that would override it."""
    given = {name: values[name] for name in ("tokenizer_args", "processor_kwargs") if isinstance(values.get(name), dict)}
    changed = {name: {**v, "model_max_length": tokens} for name, v in given.items() if "model_max_length" in v}
    return {**values, **changed, "max_seq_length": tokens}


def read_arguments(fields: Fields, old: str, new: str) -> dict[str, Any]:
    """Arguments that are passed to transformers; if both names occur, sentence-transformers takes the old one."""
    found = fields.object(old, new, default={})
    return {name: value for name, value in found.items() if name not in HUB_ARGUMENTS}


def check_modalities(fields: Fields) -> None:
    """Raise UserError unless the model takes the text unchanged and returns its last hidden state."""
    found = fields.object("modality_config", default={})
    if "message" in found:
        what = "modality_config has a message: sentence-transformers renders each text through the model's chat template"
        advice = "which is not supported: remove it to embed the bare texts"
        raise UserError(f"{show(fields.path)}: {what}, {advice}")
    expected = {"method": "forward", "method_output_name": "last_hidden_state"}
    if found and found.get("text") != expected:
        raise fields.refuse("modality_config", f"text to be {expected}")


def check_chat_template(folder: Path) -> None:
    """Raise UserError for a plain folder with a chat template, through which sentence-transformers would render each text."""
    config = read_fields(folder / "tokenizer_config.json", optional=True)
    where = "tokenizer_config.json" if config.present("chat_template") else None
    for name in ("chat_template.jinja", "additional_chat_templates"):
        where = where if is_absent(folder / name) else name
    if where is not None:
        what = "has a chat template and no modules.json: sentence-transformers renders each text through the template"
        advice = f"which is not supported: remove the template ({where}) from a copy to embed the bare texts"
        raise UserError(f"{show(folder)} {what}, {advice}")


@dataclass(frozen=True)
class SentenceSettings:
    """config_sentence_transformers.json"""

    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str
    truncate_dim: int | None


def read_sentence_settings(fields: Fields) -> SentenceSettings:
    """Prompts, similarity and dimensions of a model, checked. Raises UserError."""
    if fields.text("model_type", default="SentenceTransformer") != "SentenceTransformer":
        raise fields.refuse("model_type", '"SentenceTransformer": other kinds of model are not supported')
    prompts = {name: "" if text is None else text for name, text in fields.object("prompts", default={}).items()}
    if not all(map(is_text, prompts.values())):
        raise fields.refuse("prompts", "an object of strings")
    default = fields.text("default_prompt_name", default="") or None
    if default in ("query", "document"):  # sentence-transformers always has these two
        prompts.setdefault(default, "")
    if default is not None and default not in prompts:
        raise fields.refuse("default_prompt_name", f"one of the prompts: {show(sorted(prompts))}")
    similarity = fields.text("similarity_fn_name", default="cosine")
    if similarity not in SIMILARITIES:
        raise fields.refuse("similarity_fn_name", f"one of {', '.join(SIMILARITIES)}")
    dims = fields.integer("truncate_dim") if fields.present("truncate_dim") else None
    fields.refuse_unknown(("__version__", "requirements"))  # facts about other libraries
    return SentenceSettings(prompts, default, similarity, dims)

"""What tokenizer_config.json, special_tokens_map.json and added_tokens.json say, merged as `transformers` merges them.

Every key of these files is read, known not to change any id, or refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, is_text, show
from ..models.fields import Fields, read_fields

if TYPE_CHECKING:  # imported where it is used: it takes 50 ms
    from tokenizers import AddedToken

# the class that a folder names -> its kind, which decides rules and vocabulary files; "": tokenizer.json unchanged
CLASSES = {
    "BertTokenizer": "bert",
    "DistilBertTokenizer": "bert",
    "ElectraTokenizer": "bert",
    "MobileBertTokenizer": "bert",
    "MPNetTokenizer": "mpnet",
    "GPT2Tokenizer": "gpt2",
    "RobertaTokenizer": "roberta",
    "BartTokenizer": "roberta",
    "LongformerTokenizer": "roberta",
    "XLMRobertaTokenizer": "xlm-roberta",
    "CamembertTokenizer": "camembert",
    "Qwen2Tokenizer": "qwen2",
    "PreTrainedTokenizer": "",
    "TokenizersBackend": "",
}
ANY_CLASS = ("modernbert",)  # model types for which `transformers` 5 ignores the class that a folder names
BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
ROBERTA |= {"pad_token": "<pad>", "mask_token": "<mask>"}
END = "<|endoftext|>"
# the special tokens of a kind, if the folder does not name its own (the defaults of the classes in `transformers`)
SPECIAL_TOKENS: dict[str, dict[str, str]] = {
    "bert": BERT,
    "mpnet": {**ROBERTA, "unk_token": "[UNK]"},
    "gpt2": {"unk_token": END, "bos_token": END, "eos_token": END},
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "qwen2": {"unk_token": END, "eos_token": END, "pad_token": END},
    "": {},
}
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LISTS = ("additional_special_tokens", "extra_special_tokens")
TOKEN_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
READ = {
    *("tokenizer_class", "auto_map", "fast_tokenizer_files", "init_inputs", "added_tokens_decoder", *LISTS),
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "add_bos_token", "add_eos_token"),
    *("truncation_side", "split_special_tokens", "model_max_length", "max_len"),
}
# keys that change no id, whatever the class: about decoding, padding, offsets, slow tokenizers and chats; and notes
HARMLESS = {
    *("clean_up_tokenization_spaces", "spaces_between_special_tokens", "errors", "trim_offsets", "processor_class"),
    *("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", "model_input_names", "verbose"),
    *("padding", "padding_side", "pad_to_multiple_of", "pad_token_type_id", "pad_token_type", "return_tensors"),
    *("max_length", "stride", "truncation", "truncation_strategy"),  # arguments of a call, set by sentence-transformers itself
    *("do_basic_tokenize", "never_split", "clean_text", "wordpieces_prefix", "basic_tokenizer", "use_fast", "legacy"),
    *("sp_model_kwargs", "keep_accents", "remove_space", "return_token_type_ids", "return_attention_mask"),
    *("chat_template", "chat_control_tokens", "response_template", "response_schema", "device_map", "torch_dtype", "language"),
    *(f"{name}_id" for name in NAMED),
}
# keys without effect in these files, which as arguments would choose other files or another class
NOTES = {
    *("special_tokens", "special_tokens_map_file", "tokenizer_file", "vocab_file", "merges_file", "vocab_size"),
    *("name_or_path", "_name_or_path", "tokenizer_name", "model_type", "tokenizer_type", "from_slow", "backend"),
    *("is_local", "local_files_only", "files_loaded", "transformers_version", "_commit_hash", "_from_auto"),
    *("cache_dir", "revision", "trust_remote_code", "use_auth_token"),
}


@dataclass(frozen=True)
class TokenizerSettings:
    """The merged fields, whose path is tokenizer_config.json, and the kind of tokenizer that they belong to."""

    folder: Path
    kind: str  # a key of SPECIAL_TOKENS
    fields: Fields
    added: dict[str, int]  # token -> id, from added_tokens.json

    def named_token(self, name: str) -> "AddedToken | None":
        """A special token: the folder's, else its kind's; None if the folder says null, or neither names one."""
        if name in self.fields.values:
            return read_token(self.fields, name, self.fields.values[name])
        default = SPECIAL_TOKENS[self.kind].get(name)
        lstrip = name == "mask_token" and default == "<mask>"  # it absorbs the space before it
        return None if default is None else new_token(default, lstrip=lstrip)

    def listed_tokens(self) -> "list[AddedToken]":
        """Those of added_tokens_decoder, by id."""
        decoder = self.fields.object("added_tokens_decoder", default={})
        if not all(key.isascii() and key.isdigit() and len(key) < 10 for key in decoder):
            raise self.fields.refuse("added_tokens_decoder", "an object of ids and tokens")
        tokens = []
        for _, value in sorted(decoder.items(), key=lambda item: int(item[0])):
            if (token := read_token(self.fields, "added_tokens_decoder", value, special=False)) is None:
                raise self.fields.refuse("added_tokens_decoder", "an object of ids and tokens")
            tokens.append(token)
        return tokens

    def special_tokens(self, pad_token: str | None = None) -> "list[AddedToken]":
        """All that the folder or its kind names, in the order in which `transformers` adds them.

        pad_token: the one in tokenizer.json, used if the folder names none.
        """
        others = [key for key in self.fields.values if is_token_key(key) and key not in NAMED]
        tokens = [self.named_token(name) for name in (*NAMED, *others)]
        if pad_token is not None and "pad_token" not in self.fields.values and "pad_token" not in SPECIAL_TOKENS[self.kind]:
            tokens[NAMED.index("pad_token")] = new_token(pad_token)
        for name in LISTS:
            found = self.fields.values.get(name) or []
            found = [*found.values()] if isinstance(found, dict) else found
            if not isinstance(found, list):
                raise self.fields.refuse(name, "a list of tokens")
            tokens += [read_token(self.fields, name, value) for value in found]
        return [token for token in tokens if token is not None]


def read_tokenizer_settings(folder: Path, kind: str, arguments: Mapping[str, Any]) -> TokenizerSettings:
    """The settings of a folder.

    kind: what the model's architecture uses where the folder names no class.
    arguments: processor_kwargs of sentence_bert_config.json (tokenizer_args in older ones), which override the files.
    Raises UserError.
    """
    config = read_fields(folder / "tokenizer_config.json", optional=True)
    check_keys(config, READ | NOTES)
    values = dict(config.values)
    added: dict[str, int] = {}
    if not config.present("added_tokens_decoder"):  # files of older versions, which `transformers` reads only without this
        special = read_fields(folder / "special_tokens_map.json", optional=True)
        check_keys(special, {*LISTS})
        values |= special.values
        listed = read_fields(folder / "added_tokens.json", optional=True)
        added = {token: listed.integer(token, least=0) for token in listed.values}
    given = Fields(folder / "sentence_bert_config.json", dict(arguments))
    check_keys(given, READ - {"tokenizer_class", "auto_map", "fast_tokenizer_files", "init_inputs", "added_tokens_decoder"})
    for name in ("add_bos_token", "add_eos_token"):  # here, and only here, they override the post-processor of tokenizer.json
        if given.flag(name, default=False):
            raise given.refuse(name, "false: this is not supported as an argument of the tokenizer")
    fields = Fields(config.path, values | given.values)
    check_class_fields(fields)
    return TokenizerSettings(folder, find_kind(folder, kind, fields), fields, added)


def check_keys(fields: Fields, known: set[str]) -> None:
    """Raise UserError for a key that is neither known nor harmless and does not name a special token. Null counts as absent."""
    for key, value in fields.values.items():
        names_token = is_token_key(key) and (key in NAMED or isinstance(value, str | dict))
        if value is not None and key not in known and key not in HARMLESS and not names_token:
            what = f"{show(fields.path)}: {show(key)} is a setting that is not supported here"
            raise UserError(f"{what}: remove it if the tokens do not depend on it")


def is_token_key(key: str) -> bool:
    """Whether this key names a special token: `transformers` treats every key with this ending as one."""
    return key.endswith("_token") and key not in READ


def check_class_fields(fields: Fields) -> None:
    """Raise UserError for fields that make `transformers` run other code or read other files."""
    code = fields.values.get("auto_map")
    if isinstance(code, list) or (isinstance(code, dict) and code.get("AutoTokenizer") is not None):
        raise fields.refuse("auto_map", "none: a tokenizer that is the repository's own code is not supported")
    if fields.values.get("init_inputs"):
        raise fields.refuse("init_inputs", "none: positional arguments are not supported")
    if fields.values.get("fast_tokenizer_files") not in (None, [], ["tokenizer.json"]):
        raise fields.refuse("fast_tokenizer_files", "none: only tokenizer.json is read")
    if fields.text("truncation_side", default="right") not in ("left", "right"):
        raise fields.refuse("truncation_side", '"left" or "right"')


def find_kind(folder: Path, kind: str, fields: Fields) -> str:
    """The kind of the class that tokenizer_config.json or else config.json names; without either, `kind`."""
    config = read_fields(folder / "config.json", optional=True)
    if config.text("model_type", default="") in ANY_CLASS:
        return ""
    source = fields if fields.present("tokenizer_class") else config
    if not source.present("tokenizer_class"):
        return kind
    name = source.text("tokenizer_class").removesuffix("Fast")
    if name not in CLASSES:
        raise source.refuse("tokenizer_class", f"one of {', '.join(CLASSES)}")
    return CLASSES[name]


def new_token(content: str, *, special: bool = True, **flags: bool) -> "AddedToken":
    from tokenizers import AddedToken

    return AddedToken(content, **{"special": special, "normalized": not special, **flags})


def read_token(fields: Fields, name: str, value: Any, *, special: bool = True) -> "AddedToken | None":
    """A token as these files write it: a string, or an object with its content and flags; None for null.

    special: whatever its flags say; if False, they decide.
    """
    if value is None:
        return None
    given = value if isinstance(value, dict) else {"content": value}
    flags = {key: flag for key, flag in given.items() if key in TOKEN_FLAGS}
    if not is_text(given.get("content")) or not all(isinstance(flag, bool) for flag in flags.values()):
        raise UserError(
            f"{show(fields.path)}: {name} is {show(value)}, expected a string or an object with its content and flags"
        )
    if unknown := given.keys() - {*TOKEN_FLAGS, "content", "__type", "id"}:
        raise UserError(f"{show(fields.path)}: {name} is {show(value)}, whose {show(min(unknown))} is not supported")
    return new_token(given["content"], **{**flags, "special": special or flags.get("special", False)})

"""config.json of published models, from what is known of them, not downloaded: with fields that no version of `transformers`
writes today. The sizes of large models are left out where a default says the same. Compare it with the repositories when a
network is at hand.
"""

from typing import Any

BERT: dict[str, Any] = {
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "transformers_version": "4.8.2",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 30522,
}
ROBERTA = BERT | {"model_type": "roberta", "layer_norm_eps": 1e-05, "max_position_embeddings": 514, "type_vocab_size": 1}
ROBERTA |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "vocab_size": 50265}
GPT2: dict[str, Any] = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
POOLER = {"pooler_fc_size": 768, "pooler_num_attention_heads": 12, "pooler_num_fc_layers": 3}
POOLER |= {"pooler_size_per_head": 128, "pooler_type": "first_token_transform", "directionality": "bidi"}
CODE = {name: f"nomic-ai/nomic-bert-2048--{name}" for name in ("AutoConfig", "AutoModel", "AutoModelForMaskedLM")}

PUBLISHED: dict[str, dict[str, Any]] = {
    "sentence-transformers/all-MiniLM-L6-v2": BERT
    | {"_name_or_path": "nreimers/MiniLM-L6-H384-uncased", "architectures": ["BertModel"], "hidden_size": 384}
    | {"intermediate_size": 1536, "num_attention_heads": 12, "num_hidden_layers": 6},
    "BAAI/bge-small-en-v1.5": BERT
    | {"_name_or_path": "BAAI_bge-small-en/", "architectures": ["BertModel"]}
    | {"classifier_dropout": None, "hidden_size": 384, "intermediate_size": 1536, "id2label": {"0": "LABEL_0"}}
    | {"label2id": {"LABEL_0": 0}, "torch_dtype": "float32", "transformers_version": "4.30.0"},
    "BAAI/bge-base-zh-v1.5": BERT | POOLER | {"architectures": ["BertModel"], "output_past": True, "vocab_size": 21128},
    "intfloat/e5-base-v2": BERT | {"tokenizer_class": "BertTokenizer", "torch_dtype": "float32"},
    # as AutoTrain and exports to ONNX leave them
    "a fine-tuned one": BERT | {"_num_labels": 3, "max_length": 96, "padding": "max_length", "transformers.js_config": {"a": 1}},
    "thenlper/gte-base": BERT | {"torch_dtype": "float16", "classifier_dropout": None},
    "google-bert/bert-base-multilingual-cased": BERT | POOLER | {"architectures": ["BertForMaskedLM"], "vocab_size": 119547},
    "sentence-transformers/all-mpnet-base-v2": {
        **{
            k: v
            for k, v in ROBERTA.items()
            if k not in ("gradient_checkpointing", "position_embedding_type", "type_vocab_size", "use_cache")
        },
        **{"model_type": "mpnet", "relative_attention_num_buckets": 32, "architectures": ["MPNetForMaskedLM"]},
        **{"_name_or_path": "microsoft/mpnet-base", "vocab_size": 30527, "torch_dtype": "float32"},
    },
    "sentence-transformers/all-distilroberta-v1": ROBERTA | {"num_hidden_layers": 6, "architectures": ["RobertaForMaskedLM"]},
    "FacebookAI/roberta-large": ROBERTA | {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16},
    "intfloat/multilingual-e5-large": ROBERTA
    | {"model_type": "xlm-roberta", "vocab_size": 250002, "output_past": True, "hidden_size": 1024, "num_attention_heads": 16},
    "BAAI/bge-m3": ROBERTA | {"model_type": "xlm-roberta", "max_position_embeddings": 8194, "classifier_dropout": None},
    "almanach/camembert-base": ROBERTA | {"model_type": "camembert", "vocab_size": 32005, "output_past": True},
    "distilbert/distilbert-base-uncased": {
        **{"activation": "gelu", "architectures": ["DistilBertForMaskedLM"], "attention_dropout": 0.1, "dim": 768},
        **{"dropout": 0.1, "hidden_dim": 3072, "initializer_range": 0.02, "max_position_embeddings": 512, "n_heads": 12},
        **{"model_type": "distilbert", "n_layers": 6, "pad_token_id": 0, "qa_dropout": 0.1, "seq_classif_dropout": 0.2},
        **{"sinusoidal_pos_embds": False, "tie_weights_": True, "transformers_version": "4.10.0.dev0", "vocab_size": 30522},
    },
    "openai-community/gpt2": GPT2,
    "distilbert/distilgpt2": GPT2
    | {"_num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "n_layer": 6}
    | {"gradient_checkpointing": False, "transformers_version": "4.7.0.dev0", "use_cache": True},
    "openai-community/gpt2-xl": GPT2 | {"n_embd": 1600, "n_head": 25, "n_layer": 48, "output_past": True},
    "Muennighoff/SGPT-125M-weightedmean-nli-bitfit": {
        **{"_name_or_path": "EleutherAI/gpt-neo-125M", "activation_function": "gelu_new", "architectures": ["GPTNeoModel"]},
        **{"attention_dropout": 0, "attention_layers": ["global", "local"] * 6, "embed_dropout": 0, "window_size": 256},
        **{"attention_types": [[["global", "local"], 6]], "bos_token_id": 50256, "eos_token_id": 50256, "vocab_size": 50257},
        **{"gradient_checkpointing": False, "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": None},
        **{"layer_norm_epsilon": 1e-05, "max_position_embeddings": 2048, "model_type": "gpt_neo", "num_heads": 12},
        **{"num_layers": 12, "resid_dropout": 0, "summary_activation": None, "summary_first_dropout": 0.1, "use_cache": True},
        **{"summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True, "torch_dtype": "float32"},
        **{"tokenizer_class": "GPT2Tokenizer", "transformers_version": "4.20.0.dev0"},
    },
    "answerdotai/ModernBERT-base": {
        **{"architectures": ["ModernBertForMaskedLM"], "attention_bias": False, "attention_dropout": 0.0, "vocab_size": 50368},
        **{"bos_token_id": 50281, "classifier_activation": "gelu", "classifier_bias": False, "classifier_dropout": 0.0},
        **{"classifier_pooling": "mean", "cls_token_id": 50281, "decoder_bias": True, "deterministic_flash_attn": False},
        **{"embedding_dropout": 0.0, "eos_token_id": 50282, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0},
        **{"gradient_checkpointing": False, "hidden_activation": "gelu", "hidden_size": 768, "initializer_cutoff_factor": 2.0},
        **{"initializer_range": 0.02, "intermediate_size": 1152, "layer_norm_eps": 1e-05, "local_attention": 128},
        **{"local_rope_theta": 10000.0, "max_position_embeddings": 8192, "mlp_bias": False, "mlp_dropout": 0.0},
        **{"model_type": "modernbert", "norm_bias": False, "norm_eps": 1e-05, "num_attention_heads": 12},
        **{"num_hidden_layers": 22, "pad_token_id": 50283, "position_embedding_type": "absolute", "reference_compile": True},
        **{"repad_logits_with_grad": False, "sep_token_id": 50282, "sparse_pred_ignore_index": -100},
        **{"sparse_prediction": False, "tie_word_embeddings": True, "torch_dtype": "float32", "transformers_version": "4.47.0"},
    },
    "nomic-ai/nomic-embed-text-v1.5": {
        **{"activation_function": "swiglu", "architectures": ["NomicBertModel"], "attn_pdrop": 0.0, "auto_map": CODE},
        **{"bos_token_id": None, "causal": False, "dense_seq_output": True, "embd_pdrop": 0.0, "eos_token_id": None},
        **{"fused_bias_fc": True, "fused_dropout_add_ln": True, "initializer_range": 0.02, "layer_norm_epsilon": 1e-12},
        **{"max_trained_positions": 2048, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "model_type": "nomic_bert"},
        **{"n_embd": 768, "n_head": 12, "n_inner": 3072, "n_layer": 12, "n_positions": 8192, "pad_vocab_size_multiple": 64},
        **{"parallel_block": False, "parallel_block_tied_norm": False, "prenorm": False, "qkv_proj_bias": False},
        **{"reorder_and_upcast_attn": False, "resid_pdrop": 0.0, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0},
        **{"rotary_emb_interleaved": False, "rotary_emb_scale_base": None, "rotary_scaling_factor": 2, "vocab_size": 30528},
        **{"scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True, "summary_activation": None},
        **{"summary_first_dropout": 0.0, "summary_proj_to_labels": True, "summary_type": "cls_index", "use_cache": True},
        **{"summary_use_proj": True, "torch_dtype": "float32", "transformers_version": "4.37.2", "type_vocab_size": 2},
        **{"use_flash_attn": True, "use_rms_norm": False, "use_xentropy": True},
    },
    "Qwen/Qwen3-Embedding-0.6B": {
        **{"architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "vocab_size": 151669},
        **{"bos_token_id": 151643, "eos_token_id": 151643, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024},
        **{"initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 32768, "max_window_layers": 28},
        **{"model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8},
        **{"rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None},
        **{"tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.51.3", "use_cache": True},
        **{"use_sliding_window": False},
    },
}

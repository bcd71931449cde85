"""Fields of config.json that no vector depends on, in any architecture. Those that only one ignores are in its `unused`.

Collected from the configuration classes of `transformers` 4 and 5 and from published models. A field that is on no list
and that nothing reads is refused: it may belong to a variant that our graph does not compute.
"""

ORIGIN = """
    _commit_hash _name_or_path architectures finetuning_task keys_to_ignore_at_inference language model_type name
    name_or_path sentence_transformers task_specific_params transformers.js_config transformers_version unsloth_fixed
    unsloth_version
"""
TOKENS = """
    bos_token_id cls_token_id decoder_start_token_id do_lower_case eos_token_id eos_token_ids mask_token_id model_max_length
    pad_token_id padding prefix sep_token_id tokenizer_class unk_token_id
"""
TRAINING = """
    attention_dropout attention_probs_dropout_prob attn_pdrop classif_dropout classifier_dropout classifier_dropout_prob
    dropout embd_pdrop embed_dropout embedding_dropout gradient_checkpointing hidden_dropout hidden_dropout_prob
    initializer_factor initializer_range mlp_dropout qa_dropout resid_dropout resid_pdrop seq_classif_dropout
"""
HEADS = """
    _num_labels classifier_activation classifier_bias classifier_pooling directionality embedding_size id2label label2id
    loss_type matryoshka_dimensions num_labels pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers
    pooler_size_per_head pooler_type problem_type summary_activation summary_first_dropout summary_last_dropout
    summary_proj_to_labels summary_type summary_use_proj tie_encoder_decoder tie_word_embeddings
"""
RUNNING = """
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _experts_implementation
    _experts_implementation_internal _flash_attn_2_enabled _output_attentions attn_implementation chunk_size_feed_forward
    cross_attention_hidden_size dtype experts_implementation is_causal low_cpu_mem_usage output_attentions
    output_hidden_states output_past return_dict tf_legacy_loss tie_last_hidden_states torch_dtype torchscript use_bfloat16
    use_cache use_return_dict xla_device
"""
GENERATION = """
    assistant_confidence_threshold assistant_lookbehind bad_words_ids begin_suppress_tokens diversity_penalty do_sample
    early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff
    exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty max_length max_new_tokens
    min_length no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule num_beam_groups num_beams
    num_return_sequences output_scores remove_invalid_values renormalize_logits repetition_penalty return_dict_in_generate
    suppress_tokens target_lookbehind temperature top_k top_p typical_p
"""
UNUSED = frozenset(f"{ORIGIN}{TOKENS}{TRAINING}{HEADS}{RUNNING}{GENERATION}".split())

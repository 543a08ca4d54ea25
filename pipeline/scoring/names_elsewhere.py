"""What other libraries call an option or a method of a scorer, and what it is here, for errors to say."""

OPTIONS = {
    **dict.fromkeys(("use_fp16", "fp16", "half"), "dtype: float16"),
    **dict.fromkeys(("use_bf16", "bf16"), "dtype: bfloat16"),
    **dict.fromkeys(("torch_dtype", "precision"), "dtype"),
    "use_fp32": "dtype: float32",
    **dict.fromkeys(
        ("devices", "device_map", "device_id"),
        "device, one a Scorer; for several GPUs give a job as many actors, with num_gpus: 1",
    ),
    **dict.fromkeys(("batch_size", "max_batch_size"), "max_batch_tokens, which counts tokens"),
    **dict.fromkeys(("model_name_or_path", "model_name", "model_id", "model_path", "path"), "model"),
    **dict.fromkeys(("max_seq_length", "max_seq_len", "max_len", "max_model_len"), "max_length"),
    "max_query_length": "query_max_length",
    "max_passage_length": "passage_max_length",
    "query_instruction": "query_instruction_for_rerank (bi_encoder: query_instruction_for_retrieval)",
    "passage_instruction": "passage_instruction_for_rerank",
    "instruction": "query_instruction_for_rerank",
    "query_instruction_format_for_retrieval": "query_instruction_format",
    "passage_instruction_for_retrieval": "not supported: put it before each passage, or into the"
    " checkpoint's config_sentence_transformers.json as the prompt `document`",
    "compress_layer": "compress_layers",
    **dict.fromkeys(
        (
            *("activation_fn", "activation_function", "default_activation_function", "apply_sigmoid"),
            "normalize_scores",
        ),
        "normalize",
    ),
    "auto_truncate": "truncation: error for false; for true the default",
    **dict.fromkeys(("top_k", "top_n"), "rank(query, passages, top_k)"),
    "return_documents": "not needed: rank(query, passages) gives the passages' places",
    **dict.fromkeys(("lora_path", "adapter_path", "adapter", "lora"), "peft_path"),
    **dict.fromkeys(("cache_dir", "cache_folder"), "the environment's HF_HUB_CACHE"),
    **dict.fromkeys(("token", "use_auth_token"), "the environment's HF_TOKEN"),
    **dict.fromkeys(("backend", "framework"), "engine"),
    **dict.fromkeys(("load_in_8bit", "load_in_4bit", "quantization_config"), "quantization"),
    "model_class": "family, read from the checkpoint's own files",
    **dict.fromkeys(
        (
            *("pooling_method", "pooling", "normalize_embeddings", "similarity_fn_name", "truncate_dim"),
            *("num_labels", "prompts", "default_prompt_name", "modules"),
        ),
        "read from the checkpoint's own files",
    ),
    **dict.fromkeys(("convert_to_numpy", "convert_to_tensor"), "not needed: all is numpy's arrays"),
    **dict.fromkeys(("show_progress_bar", "verbose"), "not needed: a job logs how far it is"),
    **dict.fromkeys(
        ("attn_implementation", "use_flash_attention", "use_flash_attn", "use_dataloader"),
        "not needed: the fastest way on the device is taken",
    ),
    **dict.fromkeys(
        ("model_kwargs", "processor_kwargs", "tokenizer_kwargs", "config_kwargs", "automodel_args"),
        "the fields themselves, such as dtype",
    ),
    **dict.fromkeys(
        ("return_dense", "return_sparse", "return_colbert_vecs"), "not needed: a text has one vector"
    ),
}
"""Of ScorerConfig."""

METHODS = {
    **dict.fromkeys(("compute_score", "predict"), "score(pairs)"),
    **dict.fromkeys(("encode_queries", "encode_query"), 'embed(queries, "query")'),
    **dict.fromkeys(("encode_corpus", "encode_document"), 'embed(passages, "passage")'),
}
"""Of Scorer."""

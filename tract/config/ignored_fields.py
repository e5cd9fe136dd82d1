"""Keys that move no number, in one place: what a stage's key leaves out, and what a comparison and a judge's settings leave out."""

from __future__ import annotations

# How fast, in how much memory and with which files beside it something is made.
OF_SPEED = (
    "model.unpacked", "train.keep_checkpoints", "data.num_workers", "trainer.enable_progress_bar", "trainer.log_every_n_steps",
    "trainer.devices", "trainer.num_nodes", "trainer.deterministic", "generation.batch_size", "generation.shard_size",
    "generation.vllm.tensor_parallel_size", "generation.vllm.gpu_memory_utilization", "generation.vllm.kv_cache_gib",
    "generation.server.api_key_env", "generation.server.timeout_s", "generation.server.max_retries",
)  # fmt: skip
# What the key of a stage leaves out of the sections that it takes; a fingerprint or what was rendered stands for the others of these.
OF_STAGES = (*OF_SPEED, "model.template_date", "data.path", "data.source", "data.max_length")
# What a comparison of runs leaves out, as patterns: this, and what is only measured or called in another way.
OF_COMPARISONS = (
    *OF_SPEED, "seed", "stage", "stages", "from", "force", "dry_run", "deterministic", "compare_to", "optimized_metric", "paths.*",
    "logger.*", "hydra.*", "run.*", "train.checkpoint_every_steps", "train.validate_base_model", "trainer.*", "generation.vllm.*",
    "generation.server.*", "evaluation.predictors", "evaluation.main_predictor", "evaluation.perturbations", "evaluation.resamples",
    "evaluation.confidence", "evaluation.bins",
)  # fmt: skip
# Whole sections and keys that train no other judge: who makes it where, and what is done with it afterwards.
OF_TRAINING = (
    "stages", "from", "force", "dry_run", "stage", "compare_to", "optimized_metric", "paths", "logger", "evaluation", "hydra",
)  # fmt: skip

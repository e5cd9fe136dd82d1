"""The names that values of the configuration may have, one list each. Pure data."""

# Of logger.wandb, what is no argument of wandb.init.
WANDB_KEYS = ("artifacts", "table_rows", "timeout_s")
WANDB_ARTIFACTS = ("none", "light", "all")
WANDB_MODES = ("auto", "online", "offline", "disabled", "shared")
# The splits of the data, and those of them that a judge can be measured on.
SPLITS = ("train", "val", "test", "ood")
EVALUATED_SPLITS = SPLITS[1:]
# The stages of a pipeline, in the order in which they run.
STAGES = ("stage1", "generate", "stage2", "predict", "evaluate")
FIT_STAGES = ("stage1", "stage2")  # those that train a judge
AUTO = "auto"  # of run.subprocess_stages and generation.backend
BACKENDS = (AUTO, "hf", "vllm", "openai_server")
DTYPES = ("float32", "bfloat16", "float16")
ACCELERATORS = ("cpu", "gpu", "cuda", "mps", "auto")
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true", "64-true")
# Those of ``transformers.get_scheduler`` that need nothing but the number of steps.
SCHEDULERS = (
    "constant",
    "constant_with_warmup",
    "cosine",
    "cosine_warmup_with_min_lr",
    "cosine_with_min_lr",
    "cosine_with_restarts",
    "inverse_sqrt",
    "linear",
    "polynomial",
    "warmup_stable_decay",
)
MONITORS = (
    "val/ce",
    "val/kendall_tau",
    "val/pearson_r",
    "val/rmse",
    "val/score_mass",
    "val/spearman_rho",
    "val/squared_error",
)
# Keys that hold a path, or what may be one; none is blank.
PATHS = (
    "judge", "compare_to", "paths.runs", "paths.cache", "model.name_or_path", "model.tokenizer_name_or_path", "model.chat_template",
    "model.unpacked", "data.path", "data.source.path", "evaluation.benchmarks", "evaluation.cots",
)  # fmt: skip

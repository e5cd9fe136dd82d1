"""Private parts of libraries that the package uses, in one list; ``tests/common/test_private_apis.py`` says when one has changed.

Each is used where its library offers no public way. Whoever upgrades a library looks here first.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PrivateApi:
    """A private part of a library.

    Attributes:
        package, tested_with: the distribution, and its version that the use was tested with.
        owner: dotted module, or ``module:Class``. name: of the part; "" where the module itself is private.
        parameters: of a function, those that are used by name and those that have no default; None where the part is an attribute.
        used_in: file of the repository. purpose: what for, and why no public part serves.
    """

    package: str
    tested_with: str
    owner: str
    name: str
    parameters: tuple[str, ...] | None
    used_in: str
    purpose: str


PRIVATE_APIS = (
    PrivateApi(
        "hydra-core", "1.3.8", "hydra._internal.utils", "get_args_parser", (), "tract/pipeline/config_help.py",
        "reads the flags of a command as Hydra does; Hydra has no public parser",
    ),
    PrivateApi(
        "submitit", "1.5.4", "submitit.core._submit", "", None, "tract/pipeline/sweeps/multirun.py",
        "the main module of a job; the environment variables of submitit are inherited by the processes that a job starts",
    ),
    PrivateApi(
        "wandb", "0.31.0", "wandb:Run", "_log_artifact", ("self", "artifact_or_path", "is_user_created", "use_after_commit"),
        "tract/pipeline/tracking/tracked_products.py",
        "records a used artifact offline; Run.use_artifact refuses to work offline",
    ),
    PrivateApi(
        "wandb-workspaces", "0.4.13", "wandb_workspaces.workspaces:Workspace", "_to_model", ("self",), "tract/apps/dashboard.py",
        "the content of a workspace without a server; the public save sends it",
    ),
    PrivateApi(
        "lightning", "2.6.6", "lightning.pytorch.trainer.trainer:Trainer", "_signal_connector", None, "tract/training/graceful_stop.py",
        "keeps out Lightning's signal handlers, which exchange messages of ranks inside a handler; the Trainer has no flag for it",
    ),
    PrivateApi(
        "lightning", "2.6.6", "lightning.pytorch.trainer.connectors.signal_connector:_SignalConnector", "register_signal_handlers",
        ("self",), "tract/training/graceful_stop.py", "replaced by nothing, as above",
    ),
    PrivateApi(
        "lightning", "2.6.6", "lightning.pytorch.strategies:DeepSpeedStrategy", "_init_config_if_needed", ("self",),
        "tract/training/strategies/zero.py", "the configuration of DeepSpeed is needed before Lightning builds it",
    ),
    PrivateApi(
        "lightning", "2.6.6", "lightning.pytorch.strategies:DeepSpeedStrategy", "_init_deepspeed_distributed", ("self",),
        "tract/training/strategies/zero.py", "starts the processes of DeepSpeed with the group that is there already",
    ),
    PrivateApi(
        "deepspeed", "0.19.8", "deepspeed.runtime.engine:DeepSpeedEngine", "_config", None, "tract/training/strategies/zero.py",
        "chooses a universal checkpoint for one load; the flag is read from the configuration alone",
    ),
    PrivateApi(
        "torch", "2.13.0", "torch.ops:mkldnn", "_linear_pointwise", None, "tract/inference/hf/packed_linear.py",
        "a product with weights packed by oneDNN; torch offers it to its compiler alone",
    ),
    PrivateApi(
        "torch", "2.13.0", "torch.ops:mkldnn", "_reorder_linear_weight", None, "tract/inference/hf/packed_linear.py",
        "packs the weights, as above",
    ),
    PrivateApi(
        "torch", "2.13.0", "torch.nn:Module", "_non_persistent_buffers_set", None, "tract/models/loading.py",
        "which buffers no file holds; named_buffers lists all of them",
    ),
    PrivateApi(
        "transformers", "5.19.0", "transformers:PreTrainedConfig", "_attn_implementation", None, "tract/models/packed_forward.py",
        "the attention of a model that is changed for one forward pass; the public setter checks and changes all submodels",
    ),
    PrivateApi(
        "lightning", "2.6.6", "lightning.pytorch:LightningModule", "_trainer", None, "tract/method/lit_module.py",
        "whether a trainer is attached; the public property raises where none is",
    ),
    PrivateApi(
        "lightning", "2.6.6", "lightning.pytorch.strategies.strategy:Strategy", "_precision_plugin", None,
        "tract/training/strategies/zero.py", "puts a plugin that leaves batches unchanged in the place of DeepSpeed's",
    ),
    PrivateApi(
        "lightning", "2.6.6", "lightning.pytorch.plugins:HalfPrecision", "_desired_input_dtype", None,
        "tract/training/strategies/precision.py", "the dtype that the plugin was built for; it has no public name",
    ),
    PrivateApi(
        "lightning", "2.6.6", "lightning.pytorch.strategies:ModelParallelStrategy", "_data_parallel_size", None,
        "tract/training/strategies/fsdp.py", "all ranks share the data; Lightning sets it from a mesh of its own",
    ),
    PrivateApi(
        "torch", "2.13.0", "torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING", None,
        "tract/training/strategies/safe_unpickling.py", "of the metadata of FSDP's checkpoints, which no public reader loads safely",
    ),
    PrivateApi(
        "torch", "2.13.0", "torch.distributed.checkpoint.filesystem", "_StorageInfo", None,
        "tract/training/strategies/safe_unpickling.py", "as above",
    ),
    PrivateApi(
        "torch", "2.13.0", "torch.serialization", "_get_layout", None, "tract/training/strategies/safe_unpickling.py", "as above",
    ),
    PrivateApi(
        "torch", "2.13.0", "torch.nn:Module", "_buffers", None, "tract/models/loading.py",
        "replaces a computed buffer; register_buffer would make it persistent again",
    ),
    PrivateApi(
        "transformers", "5.19.0", "transformers:PreTrainedModel", "_supports_sdpa", None, "tract/models/packed_forward.py",
        "whether a model may use sdpa; only loading it with sdpa would tell",
    ),
    PrivateApi(
        "transformers", "5.19.0", "transformers:PreTrainedModel", "_no_split_modules", None, "tract/models/sharding.py",
        "the classes of a model's layers, which are sharded one by one",
    ),
    PrivateApi(
        "transformers", "5.19.0", "transformers:PreTrainedConfig", "_commit_hash", None, "tract/models/locating.py",
        "the revision that a hub id led to; part of a judge's fingerprint",
    ),
    PrivateApi(
        "transformers", "5.19.0", "transformers:PreTrainedConfig", "_name_or_path", None, "tract/models/loading.py",
        "what a packaged model is called in saved files, in place of a local path",
    ),
    PrivateApi(
        "huggingface_hub", "2.4.0", "huggingface_hub", "_CACHED_NO_EXIST", None, "tract/artifacts/exported_judge.py",
        "what try_to_load_from_cache returns for a file that is known not to exist; documented, though its name is private",
    ),
    PrivateApi(
        "huggingface_hub", "2.4.0", "huggingface_hub.utils._validators", "validate_repo_id", ("repo_id",), "tract/apps/export/hub.py",
        "refuses a name before an export takes its time; huggingface_hub.utils imports it without declaring it public",
    ),
)  # fmt: skip

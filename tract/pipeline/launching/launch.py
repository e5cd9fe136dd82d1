"""Starts the processes of a stage: one, several on this machine by torchrun's engine, or one beside each process of a launcher.

    python train.py trainer.devices=4                  this process starts 4 ranks for each stage
    torchrun --nproc-per-node=4 train.py ...           or srun: a launcher started 4 of this process already. The first runs the
                                                       pipeline and says what is to be done; each starts its own rank of a stage.

A stage's ranks always get the environment of torchrun, so that nothing behind it knows who started them.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from tract.common import import_order, signals
from tract.common.errors import ConfigError, ReportedExit
from tract.config.devices import spreads_weights
from tract.config.schema import Config
from tract.config.vocabulary import AUTO
from tract.pipeline.launching.interrupt_note import discard_note, take_note

log = logging.getLogger(__name__)

_JOB = "tract.pipeline.launching.job"
ERROR_FILE = "error.txt"  # what the process of a failed task has told, one line
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# What the processes of a launcher wait for: stages of another size, and other runs that make the same stage.
_PATIENCE = timedelta(days=30)
_numbers = count()  # of the messages, over all pipelines of this process


def processes(cfg: Config) -> int:
    """Ranks of a stage that works on all devices."""
    return _devices(cfg) * int(cfg.trainer.get("num_nodes", 1))


def _devices(cfg: Config) -> int:
    devices: Any = cfg.trainer.get("devices", 1)
    if isinstance(devices, list):
        return 1  # of one number, by the rules of the configuration
    if str(devices) not in ("auto", "-1"):
        return int(devices)
    import torch

    return max(1, torch.cuda.device_count()) if cfg.trainer.get("accelerator") != "cpu" else 1


def isolated(cfg: Config) -> bool:
    """Whether heavy stages run in processes of their own: as ``run.subprocess_stages`` says, and if that is "auto", where it matters.

    A GPU's driver and vLLM keep memory until their process ends, ranks are processes, and DeepSpeed compiles in an environment of its
    own. On a CPU, memory is free when a stage's objects are gone, and a start would cost more than many a stage.
    """
    if cfg.run.subprocess_stages != AUTO:
        return str(cfg.run.subprocess_stages).lower() == "true"
    on_cpu = cfg.trainer.get("accelerator") == "cpu"
    return not on_cpu or processes(cfg) > 1 or spreads_weights(cfg) or cfg.generation.backend == "vllm"


def check_devices(cfg: Config) -> None:
    """Refuses more devices than there are, and ranks that nobody starts.

    Raises:
        ConfigError: naming the key, what was found and what to do.
    """
    devices, nodes, outer = _devices(cfg), int(cfg.trainer.get("num_nodes", 1)), launcher()
    if cfg.trainer.get("accelerator") in ("gpu", "cuda"):
        import torch

        if (present := torch.cuda.device_count()) < devices:
            do = f"set trainer.devices={present}" if present else "set trainer.accelerator=cpu trainer.precision=32-true, or trainer=cpu"
            raise ConfigError(f"trainer.devices: {devices} GPUs are asked for, {present} are present; {do}")
    if outer is not None and outer["WORLD_SIZE"] != str(devices * nodes):
        raise ConfigError(
            f"trainer.devices: {devices} on {nodes} machines are {devices * nodes} processes, but {outer['WORLD_SIZE']} were started; "
            "start as many, or change trainer.devices or trainer.num_nodes"
        )
    if outer is None and nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes: {nodes} machines need one process for each device, started by srun or torchrun; see docs/scaling.md"
        )
    if devices * nodes > 1 and not isolated(cfg):
        raise ConfigError(
            f"run.subprocess_stages: false runs stages in this one process, but trainer.devices={devices}; set one of them otherwise"
        )


@lru_cache
def launcher() -> dict[str, str] | None:
    """What a launcher that started several of this process says of this one, in torchrun's words; None if there is none."""
    environment = os.environ
    if int(environment.get("WORLD_SIZE", 1)) > 1 and "RANK" in environment:
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "GROUP_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        return {name: environment[name] for name in names if name in environment}
    if environment.get("SUBMITIT_EXECUTOR") == "local":
        return _submitit_task(environment)
    return _slurm_task(environment)


def _submitit_task(environment: Mapping[str, str]) -> dict[str, str] | None:
    """Which of several tasks of a submitit job on this machine this process is."""
    if (tasks := environment["SUBMITIT_LOCAL_NTASKS"]) == "1":
        return None
    rank, port = environment["SUBMITIT_LOCAL_GLOBALID"], _port_of(environment["SUBMITIT_LOCAL_JOB_ID"])
    return {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": tasks, "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def _slurm_task(environment: Mapping[str, str]) -> dict[str, str] | None:
    """Which of several tasks of srun this process is. A batch script is one, whatever SLURM says of its job (SLURM_NTASKS)."""
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if tasks == 1:
        return None
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    address = SLURMEnvironment.resolve_root_node_address(environment.get("SLURM_STEP_NODELIST", "127.0.0.1"))
    return {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": str(tasks),
        "GROUP_RANK": environment.get("SLURM_NODEID", "0"),
        "MASTER_ADDR": environment.get("MASTER_ADDR", address),
        "MASTER_PORT": environment.get("MASTER_PORT", _port_of(environment["SLURM_JOB_ID"])),
    }


def _port_of(job: str) -> str:
    """A port for a job, which others on the same machine hardly share."""
    return str(15000 + (7 * int(job)) % 15000)


def follows() -> bool:
    """Whether this process only starts its rank of the stages that another one tells."""
    outer = launcher()
    return outer is not None and outer["RANK"] != "0"


def follow() -> None:
    """Starts this process's rank of each stage that the first process tells, until the pipeline is over.

    Raises:
        SystemExit: if a rank failed, here or elsewhere.
    """
    signals.set_launched(first=False)
    store = _store()
    while (message := json.loads(store.get(f"task{next(_numbers)}"))) is not None:
        if code := _run_beside(message, store):
            sys.exit(code)


@contextmanager
def leading() -> Iterator[None]:
    """Lets the other processes of a launcher go on when the pipeline is over; if it failed, the launcher ends them."""
    if launcher() is not None:
        signals.set_launched(first=True)
    yield
    if launcher() is not None:
        _store().set(f"task{next(_numbers)}", "null")


def run_job(task: Mapping[str, Any], resolved: DictConfig, size: int, product_file: str) -> Path:
    """Runs a task in processes of its own, whose memory is gone when the next begins; returns the folder that they made.

    Args:
        task: what ``tract.pipeline.launching.job`` reads. resolved: the configuration.
        size: ranks; 1, or those of the launcher, or on this machine.
        product_file: where the first rank says what it made.

    Raises:
        SystemExit: if it failed; the processes have said why.
    """
    message: dict[str, Any] = {"task": dict(task), "config": OmegaConf.to_yaml(resolved, resolve=True)}
    with tempfile.TemporaryDirectory(prefix="tract-") as place, signals.postponed():
        folder = Path(place)
        sys.stdout.flush()
        signals.set_status(f"in {task['stage']}")
        code = _run(message, folder, size)
        if take_note(folder):
            signals.check()
        if code == 0:
            signals.set_status(f"after {task['stage']}, which is complete")
            return Path((folder / product_file).read_text(encoding="utf-8"))
        signals.check()
        if code < 0:  # else it has said why itself
            hint = "; memory may have run out" if code == -signal.SIGKILL else ""
            again = "run the same command again: it goes on where it stopped"
            log.error("%s: its process was ended by signal %d%s; %s", task["stage"], -code, hint, again)
        said = folder / ERROR_FILE
        status = code if code > 0 else 128 - code
        ended = f"{task['stage']}: its process ended with exit status {status}"
        raise ReportedExit(status, said.read_text(encoding="utf-8") if said.exists() else ended)


def _run(message: dict[str, Any], folder: Path, size: int) -> int:
    """Runs the processes of a task; their exit status, or minus the signal that ended one of them."""
    outer = launcher()
    if size > 1 and outer is not None:
        store = _store()
        message["master"] = [outer["MASTER_ADDR"], _free_port()]
        store.set(f"task{next(_numbers)}", json.dumps(message))
        return _run_beside(message, store, folder)
    _write_task(folder, message)
    return _run_one(folder, _environment({}, alone=True)) if size == 1 else _run_several(folder, size)


def _write_task(folder: Path, message: Mapping[str, Any]) -> None:
    (folder / "config.yaml").write_text(message["config"], encoding="utf-8")
    # Modules of the user's that the configuration names may lie where this process alone looks, as the working directory.
    task = {**message["task"], "parent": os.getpid(), "import_path": [os.path.abspath(path) for path in sys.path]}
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")


def _run_one(folder: Path, environment: Mapping[str, str]) -> int:
    """One process; its exit status, or minus the signal that ended it."""
    with signals.child_process([sys.executable, "-P", "-m", _JOB, str(folder)], environment) as process:
        return process.wait()


def _run_several(folder: Path, size: int) -> int:
    """Ranks on this machine, by torchrun's engine, which ends all when one fails; the status of the first that failed."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    signals.check()  # from here on the engine has handlers of its own, which tell the ranks
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the ranks say themselves what is wrong
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=size, run_id=uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        local_addr="localhost", max_restarts=0, monitor_interval=0.2,
    )  # fmt: skip
    handlers = {number: signal.getsignal(number) for number in _HANDLED}
    before = dict(os.environ)
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // size)))
    os.environ.update(_environment({"OMP_NUM_THREADS": threads}))
    try:
        elastic_launch(config, sys.executable)("-P", "-m", _JOB, str(folder))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if signals.is_interrupt_status(failure.exitcode) and take_note(folder):
            return int(failure.exitcode)
        discard_note(folder)  # of a rank that was ended since this one failed
        log.error("rank %d of %d failed first, with exit status %d; the others were ended", rank, size, failure.exitcode)
        return int(failure.exitcode)
    except SignalException as error:
        signals.adopt(int(error.sigval))
        return -int(error.sigval)
    finally:
        os.environ.clear()
        os.environ.update(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


def _run_beside(message: Mapping[str, Any], store: Any, folder: Path | None = None) -> int:
    """This process's rank of a stage of all; returns when every rank has ended well, or this one has failed."""
    outer = launcher()
    assert outer is not None
    task = f"{message['master'][1]}-{message['task']['stage']}"
    with tempfile.TemporaryDirectory(prefix="tract-") as place:
        own = folder or Path(place)
        _write_task(own, message)
        address, port = message["master"]
        # A meeting point of its own for each stage: what an earlier one left at the launcher's would be taken for today's.
        names = {**outer, "MASTER_ADDR": address, "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "False"}
        if code := _run_one(own, _environment(names)):
            return code
    store.set(f"{task}/done{outer['RANK']}", "1")
    store.wait([f"{task}/done{rank}" for rank in range(int(outer["WORLD_SIZE"]))], _PATIENCE)
    return 0


@lru_cache
def _store() -> Any:
    """Where the processes of a launcher exchange messages: torchrun's own meeting point, or one at the first process."""
    import torch

    outer, distributed = launcher(), cast(Any, torch.distributed)
    assert outer is not None
    of_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    first = outer["RANK"] == "0" and not of_launcher
    place = (outer["MASTER_ADDR"], int(outer["MASTER_PORT"]))
    store = distributed.TCPStore(*place, is_master=first, timeout=_PATIENCE, wait_for_workers=False)
    return distributed.PrefixStore("tract", store)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment(added: Mapping[str, str], *, alone: bool = False) -> dict[str, str]:
    """This process's environment, in which the package, and programs installed beside it, are found wherever it was started.

    Args:
        added: names to set. alone: leave out what a launcher says of ranks.
    """
    ranks = ("RANK", "LOCAL_RANK", "WORLD_SIZE") if alone else ()
    kept = {name: value for name, value in os.environ.items() if name not in ranks}
    # DeepSpeed compiles with ninja, which is on no PATH where .venv was not activated.
    programs = os.pathsep.join([str(Path(sys.executable).parent), *filter(None, [kept.get("PATH")])])
    return {**kept, **import_order.for_children(kept), "PATH": programs, **added}

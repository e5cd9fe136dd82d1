"""Putting an export on the Hugging Face hub: on request alone, and with one line for what goes wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tract.common.errors import ConfigError


def check_push(repo: str, api: Any = None) -> str:
    """The user of the token at hand, before an export takes its time.

    Args:
        repo: NAME, or OWNER/NAME. api: None for the hub's own ``HfApi``.

    Raises:
        ConfigError: if the name cannot be one, or the hub cannot be reached or knows no such token.
    """
    from huggingface_hub.utils._validators import validate_repo_id

    with _hub_errors_in_one_line(repo):
        validate_repo_id(repo)
        return str((api or _api()).whoami()["name"])


def push(folder: Path, repo: str, *, private: bool, api: Any = None) -> str:
    """Uploads a complete export as one commit; returns its address.

    Args:
        folder: the export. repo: NAME, or OWNER/NAME. private: make the repository private. api: None for the hub's own.

    Raises:
        ConfigError: if the upload fails, or the repository is there already and public where ``private`` was asked for.
    """
    hub = api or _api()
    with _hub_errors_in_one_line(repo, folder):
        made = hub.create_repo(repo_id=repo, private=private, exist_ok=True, repo_type="model")
        full = str(made.repo_id)
        if private and not hub.repo_info(repo_id=full, repo_type="model").private:
            raise ConfigError(f"--private: {full} is there already and public; make it private on the hub, or give another name")
        hub.upload_folder(repo_id=full, folder_path=str(folder), repo_type="model", commit_message="A judge, exported by tract")
        return str(made)


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi()


@contextmanager
def _hub_errors_in_one_line(repo: str, folder: Path | None = None) -> Iterator[None]:
    """Turns the errors of the hub's client into one line."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    kept = "" if folder is None else f"; the export is complete in {folder}, `hf upload {repo} {folder}` tries again"
    try:
        yield
    except ConfigError:
        raise
    except HFValidationError as error:
        raise ConfigError(f"--push: {repo!r} is no name of a repository: {_first_characters(error)}; give NAME or OWNER/NAME") from error
    except LocalTokenNotFoundError as error:
        raise ConfigError(f"--push: no token of the hub is at hand; run `hf auth login`, or set HF_TOKEN{kept}") from error
    except OfflineModeIsEnabled as error:
        raise ConfigError(f"--push: HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it{kept}") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status == 401:
            raise ConfigError(f"--push: the hub knows no such token; run `hf auth login`, or set HF_TOKEN to a valid one{kept}") from error
        if status == 403:
            raise ConfigError(
                f"--push: the token may not write to {repo!r}; use one with the right to write, or another OWNER{kept}"
            ) from error
        raise ConfigError(f"--push: the hub refused {repo!r}: {_first_characters(error)}{kept}") from error
    except Exception as error:
        # The client's transport has errors of its own, which are no OSError.
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in ("httpx", "httpcore", "requests", "urllib3"):
            raise
        where = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        raise ConfigError(
            f"--push: the hub at {where} cannot be reached ({type(error).__name__}: {_first_characters(error)}){kept}"
        ) from error


def _first_characters(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]

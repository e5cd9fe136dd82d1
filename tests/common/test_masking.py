"""Secrets are masked wherever they stand, and nothing else is."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from composing import CONF
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tract.common.masking import MaskedFormatter, masked, masked_text, names_secret, secret_keys


@pytest.mark.parametrize(
    "name",
    [
        "token", "hf_token", "HF_TOKEN", "hub_token", "use_auth_token", "access_token", "accessToken", "auth_tokens", "api_key", "apiKey",
        "APIKey", "api-key", "api_keys", "OPENAI_API_KEY", "WANDB_API_KEY", "API_KEY_2", "secret", "client_secret", "SECRETS", "password",
        "db_password", "passwd", "passphrase", "Authorization", "auth", "proxy-authorization", "access_key", "AWS_SECRET_ACCESS_KEY",
        "secret_access_key", "private_key", "ssh_key", "credentials", "Credential", "AWS_SESSION_TOKEN", "cookie",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert names_secret(name)
    assert masked({"outer": [{name: "abc"}]}, {}) == {"outer": [{name: "***"}]}


@pytest.mark.parametrize(
    "name",
    [
        "pad_token", "eos_token", "bos_token", "max_cot_tokens", "max_tokens_per_micro_batch", "tokenizer", "tokenizer_name_or_path",
        "score_token", "score_tokens", "score_token_ids", "tokens", "pad_token_id", "special_tokens", "api_key_env", "key", "keys",
        "primary_key", "HF_TOKEN_PATH", "PWD", "OLDPWD", "SSH_AUTH_SOCK",
        "GOOGLE_APPLICATION_CREDENTIALS_FILE", "secret_name", "author", "keep_closest",
        "TOKENIZERS_PARALLELISM", "train/tokens_per_s", "key_value_heads", "", "passes", "authors", "monkey",
    ],
)  # fmt: skip
def test_names_of_other_things(name: str) -> None:
    assert not names_secret(name)
    assert masked({name: "abc"}, {}) == {name: "abc"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hf_" + "a1B2" * 8, "***"),
        ("sk-" + "a1b2" * 8, "***"),
        ("sk-proj-" + "A1-b_" * 8, "***"),
        ("key hf_" + "x" * 34 + ", thanks", "key ***, thanks"),
        ("ghp_" + "a" * 36, "***"),
        ("github_pat_" + "a1_" * 12, "***"),
        ("AKIA" + "A1" * 8, "***"),
        ("glpat-" + "a" * 20, "***"),
        ("xoxb-123456-abcdef", "***"),
        ("eyJhbGciOiJIUzI1." + "eyJzdWIiOiIxMjM0." + "sig", "***"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("Basic dXNlcjpwYXNzd29yZA1=", "Basic ***"),
        ("http://me:pass@host:80/v1", "http://***@host:80/v1"),
        ("http://me:p@ss@host/v1?x=1", "http://***@host/v1?x=1"),
        ("https://tok3n@host/v1", "https://***@host/v1"),
        ("http://host/v1?api_key=abc&x=1#top", "http://host/v1?api_key=***&x=1#top"),
        ("http://host/?x=1&token=abc", "http://host/?x=1&token=***"),
        ("http://host/f?X-Amz-Signature=abc&sig=d", "http://host/f?X-Amz-Signature=***&sig=***"),
        ("logger.wandb.api_key=abc", "logger.wandb.api_key=***"),
        ("+a.token='a b' seed=1", "+a.token=*** seed=1"),
        ("{'api_key': 'abc', 'x': 1}", "{'api_key': ***, 'x': 1}"),
        ('{"password": "abc"}', '{"password": ***}'),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nrest", "***\nrest"),
    ],
)
def test_secrets_in_texts(text: str, shown: str) -> None:
    assert masked_text(text, {}) == shown
    assert masked({"note": text}, {}) == {"note": shown}
    assert masked_text(shown, {}) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://host:8000/v1?page=2&n=1", "https://github.com/a/b", "someone@example.org", "mailto:a@b",
        "runs/task-specific-instructions-2",
        "hf_model", "sk-learn", "the bearer of this", "Basic understanding of pre-training", "model.pad_token=<pad>",
        "data.max_length: 5 tokens",
        "model.pad_token: the tokenizer has no pad token", "score_loss_weight=1.0", "logger.wandb.api_key=${oc.env:NAME}",
        "generation.server.api_key_env=OPENAI_API_KEY", "0123456789abcdef0123456789abcdef01234567", "a=b&key=c", "token", "[RESULT] 3",
        "risk-2-benefit-analysis-of-tasks",
    ],
)  # fmt: skip
def test_other_texts_stay(text: str) -> None:
    assert masked_text(text, {}) == text
    assert masked({"note": text, "list": [text]}, {}) == {"note": text, "list": [text]}


def test_values_of_variables_whose_names_say_so() -> None:
    environment = {
        "MY_TOKEN": "correcthorse",
        "LONGER_TOKEN": "correcthorsebattery",
        "SHORT_TOKEN": "abc",
        "PLAIN": "plainvalue",
        "PWD": "/a/b/c/d/e",
    }
    content = {"a": "correcthorse", "b": ["xcorrecthorsey"], "c": "abc", "d": "plainvalue", "e": "correcthorsebattery", "f": "/a/b/c/d"}
    expected = {"a": "***", "b": ["x***y"], "c": "abc", "d": "plainvalue", "e": "***", "f": "/a/b/c/d"}
    assert masked(content, environment) == expected
    assert masked_text("says correcthorse", environment) == "says ***"


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "correcthorse")
    assert masked(("correcthorse", 3)) == ("***", 3)
    assert masked_text("correcthorse!") == "***!"


def test_other_kinds_of_values() -> None:
    """40 hex digits are a key of W&B only under a name that says so; a name of a variable is no secret; a token can be a number."""
    digits = "0123456789abcdef0123456789abcdef01234567"
    content: dict[str, Any] = {
        "api_key": digits, "commit": digits, "password": 12345678, "token": None, "auth": True, "secret": "", "think_token": 5,
        "credentials": {"user": "me", "scopes": ["a", 1]}, "hf_token": "${oc.env:HF_TOKEN}", "db_token": "${oc.env:X,hunter2}",
    }  # fmt: skip
    before = repr(content)
    assert masked(content, {}) == {
        "api_key": "***", "commit": digits, "password": "***", "token": None, "auth": True, "secret": "", "think_token": 5,
        "credentials": {"user": "***", "scopes": ["***", "***"]}, "hf_token": "${oc.env:HF_TOKEN}", "db_token": "***",
    }  # fmt: skip
    assert repr(content) == before
    assert secret_keys(content, {}) == [
        "api_key", "password", "credentials.user", "credentials.scopes[0]", "credentials.scopes[1]", "db_token",
    ]  # fmt: skip
    assert masked(masked(content, {}), {}) == masked(content, {})


def test_lines_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "correcthorse")
    record = logging.LogRecord("tract", logging.INFO, "file", 1, "going to %s?token=%s", ("http://me:it@host/", "abc"), None)
    assert MaskedFormatter("[x] %(message)s").format(record) == "[x] going to http://***@host/?token=***"
    failed = logging.LogRecord("tract", logging.ERROR, "file", 1, "no", (), (ValueError, ValueError("correcthorse"), None))
    assert MaskedFormatter().format(failed) == "no\nValueError: ***"


def test_no_value_of_the_configuration_is_taken_for_a_secret() -> None:
    """With what Hydra adds; ``tests/config/test_configs.py`` asks the same of every experiment."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("train", ["generation=openai_server", "logger=default"], return_hydra_config=True)
    assert secret_keys(OmegaConf.to_container(cfg)) == []

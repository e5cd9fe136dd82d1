"""The private parts of libraries that the package uses are still there, with the signature that is used."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tract.common.private_apis import PRIVATE_APIS, PrivateApi

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = [api for api in PRIVATE_APIS if find_spec(api.owner.partition(":")[0].partition(".")[0]) is not None]


def changed(api: PrivateApi, what: str) -> str:
    return f"{api.owner} {api.name}: {what}; {api.used_in} uses it ({api.purpose}); tested with {api.package} {api.tested_with}"


def owner_of(api: PrivateApi) -> Any:
    module, _, name = api.owner.partition(":")
    try:
        found = import_module(module)
        return getattr(found, name) if name else found
    except (ImportError, AttributeError) as error:
        pytest.fail(changed(api, f"its owner is gone ({error})"))


@pytest.mark.parametrize("api", INSTALLED, ids=lambda api: f"{api.owner}.{api.name}")
def test_it_is_there_with_its_signature(api: PrivateApi) -> None:
    owner = owner_of(api)
    if api.parameters is not None:
        part = getattr(owner, api.name, None)
        assert part is not None, changed(api, "it is gone")
        taken = inspect.signature(part).parameters.values()
        required = {each.name for each in taken if each.default is each.empty and each.kind is not each.VAR_KEYWORD}
        used = set(api.parameters)
        assert used <= {each.name for each in taken}, changed(api, "its signature has changed")
        assert required <= used, changed(api, "its signature has changed")
    elif api.name and not hasattr(owner, api.name):  # set in each instance
        source = inspect.getsource(owner)
        assert f"self.{api.name}" in source or f'"{api.name}"' in source, changed(api, "it is gone")


@pytest.mark.parametrize("api", PRIVATE_APIS, ids=lambda api: f"{api.owner}.{api.name}")
def test_the_list_names_where_it_is_used(api: PrivateApi) -> None:
    text = (ROOT / api.used_in).read_text(encoding="utf-8")
    assert (api.name or api.owner) in text, f"{api.used_in} does not use {api.name or api.owner} any more; remove it from the list"

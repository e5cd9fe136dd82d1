"""Records of runs: what is written is read again, and what is none is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tract.artifacts.records import COMPLETE, FAILED, RUNNING, RunRecord, config_of, read_record, records_below
from tract.common.errors import DataError

RECORD = RunRecord(RUNNING, {"seed": 0, "run": {"name": "a"}}, ("seed=0",), job=3, sweep="s")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = RECORD.write(tmp_path / "runs")
    assert path == tmp_path / "runs" / "records" / f"{RECORD.key}.json"
    assert read_record(path) == RECORD
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_same_configuration_has_one_record(tmp_path: Path) -> None:
    RECORD.write(tmp_path)
    done = replace(RECORD, status=COMPLETE, stages={"stage1": "../stages/stage1-0"}, finished="2020-01-01T00:00:00+00:00", job=7)
    done.write(tmp_path)
    other = replace(RECORD, status=FAILED, config={"seed": 1}, message="no")
    other.write(tmp_path / "below")
    found = [record for _, record in records_below(tmp_path)]
    assert found == [other, done] or found == [done, other]


def test_links_are_not_followed(tmp_path: Path) -> None:
    RECORD.write(tmp_path / "elsewhere")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert list(records_below(tmp_path / "here")) == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"status": "complete", "config": {}, "overrides": [], "more": 1}', '{"status": "x"'])
def test_what_is_no_record_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "records" / "a.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.json: no record of a run \("):
        list(records_below(tmp_path))


def test_a_configuration_is_resolved_and_holds_no_secret() -> None:
    cfg = OmegaConf.create({"a": 1, "b": "${a}", "api_key": "hf_" + "x" * 34})
    assert config_of(cfg) == {"a": 1, "b": 1, "api_key": "***"}
    assert config_of(OmegaConf.create({"b": "${absent}"})) == {"b": "${absent}"}

"""The logs of all ranks as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tract.common.distributed import RankInfo
from tract.common.errors import DataError
from tract.inference.judgement import GIVEN, Judgement
from tract.pipeline.stages.judgement_log import JudgementLog
from tract.pipeline.stages.rank_logs import RankLogs


def judgement(row: int, sample: int = 0, text: str = "") -> Judgement:
    return Judgement(f"e{row}", row, sample, (1,), text, GIVEN, (0.5, 0.5), None, None)


def test_what_other_ranks_did_counts_and_is_read_in_order(tmp_path: Path) -> None:
    """Of an earlier try on two processes, which one goes on with; what both have is taken once."""
    JudgementLog(tmp_path / "rank0", 10).append([judgement(0), judgement(3)])
    JudgementLog(tmp_path / "rank1", 10).append([judgement(1), judgement(3, text="again")])
    logs = RankLogs(tmp_path, 10)
    assert [logs.missing(row, [0]) for row in range(4)] == [False, False, True, False]
    logs.append([judgement(2), judgement(1, text="again")])
    assert not logs.missing(2, [0])
    assert logs.finish()
    assert [(j.row, j.cot) for j in logs.ordered()] == [(0, ""), (1, ""), (2, ""), (3, "")]
    assert len(JudgementLog(tmp_path / "rank0", 10)) == 3


def test_a_damaged_line_of_another_rank_is_made_again(tmp_path: Path) -> None:
    JudgementLog(tmp_path / "rank1", 10).append([judgement(0), judgement(1)])
    (shard,) = (tmp_path / "rank1").glob("*.jsonl")
    shard.write_bytes(shard.read_bytes()[:-5])
    logs = RankLogs(tmp_path, 10)
    assert not logs.missing(0, [0])
    assert logs.missing(1, [0])


def test_ranks_share_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for rank in range(3):
        logs = RankLogs(tmp_path / str(rank), 10)
        monkeypatch.setattr("tract.pipeline.stages.rank_logs.rank_info", lambda rank=rank: RankInfo(rank, 3, rank))
        shares.append(logs.own_share(["a", "b", "c", "d", "e"], [50, 40, 30, 20, 10]))
        monkeypatch.undo()
    assert sorted(part for share in shares for part in share) == ["a", "b", "c", "d", "e"]
    assert all(share == sorted(share) for share in shares)
    assert {"a"} in [set(share) for share in shares]


def test_the_first_of_the_ranks_behind_a_judge_gets_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for rank in range(4):
        logs = RankLogs(tmp_path / str(rank), 10)
        monkeypatch.setattr("tract.pipeline.stages.rank_logs.rank_info", lambda rank=rank: RankInfo(rank, 4, rank))
        shares.append(logs.own_share(["a", "b", "c"], [50, 40, 30], ranks_per_judge=2))
        monkeypatch.undo()
    assert sorted([shares[0], shares[2]]) == [["a"], ["b", "c"]]
    assert shares[1] == shares[3] == []


@pytest.mark.parametrize("name", ["rank1", "rank1/00000.jsonl"])
def test_a_log_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    """It would be repaired and written to there."""
    JudgementLog(tmp_path / "elsewhere", 10).append([judgement(0)])
    link, target = tmp_path / "journal" / name, tmp_path / "elsewhere" / ("" if name == "rank1" else "00000.jsonl")
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    with pytest.raises(DataError, match=rf"{name}' is refused, it leads out of the folder by a link"):
        RankLogs(tmp_path / "journal", 10)

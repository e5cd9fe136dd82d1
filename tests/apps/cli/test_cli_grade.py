"""``tract grade``: from a file to a graded file, killed and gone on with, and its exit status."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from graders import StandIn

from tract.inference.judgement import CUE, Judgement
from tract.judge.grades import Grade, grade_of
from tract.judge.requests import GradeRequest
from tract.text.schema import Rubric
from tract.text.score_grid import ScoreGrid

Command = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[3]
# The command with a judge that ends the process in the middle.
PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from graders import StandIn
import tract.apps.cli.grade
tract.apps.cli.grade.open_judge = lambda path, options: StandIn(end_at={end_at}, end_by={end_by})
from tract.apps.cli.main import main
main(sys.argv[1:])
"""


def write(path: Path, count: int) -> Path:
    rows = [{"instruction": f"Question {n}?", "response": ("no mass", "", str(n % 5 + 1), "broken")[n % 4]} for n in range(count)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + "not json\n")
    return path


def run_and_end(folder: Path, *arguments: object, end_at: int, end_by: int) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(tests=str(ROOT / "tests" / "support"), end_at=end_at, end_by=end_by)
    command = [sys.executable, "-c", program, "grade", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_a_file_is_graded_and_summed_up(tmp_path: Path, tract: Command, judge: StandIn) -> None:
    source, out = write(tmp_path / "in.jsonl", 4), tmp_path / "out.csv"
    (tmp_path / "rubric.yaml").write_text("criteria: Right?\ndescriptions: {1: no, 5: yes it is}\n")
    arguments = [source, "-o", out, "--judge", "j", "--rubric", tmp_path / "rubric.yaml"]
    # YAML reads `no` as false: that is no description.
    status, _, error = tract("grade", *arguments)
    line = (
        f"error: --rubric {tmp_path / 'rubric.yaml'}: rubric.descriptions.1: found false; text is accepted; YAML reads yes, no, on and off "
    )
    assert (status, error) == (2, f"{line}as true and false: quote it, e.g. 'yes'\n")
    (tmp_path / "rubric.yaml").write_text("criteria: Right?\ndescriptions: {1: 'no', 5: yes it is}\n")
    status, output, error = tract("grade", *arguments, "--n-cot", 2, "--grid", "1,2,3", "--calibrated", "--dtype", "bfloat16")
    assert status == 0
    assert judge.options == {"judge": "j", "n_cot": 2, "grid": ("1", "2", "3"), "calibrated": True, "dtype": "bfloat16"}  # type: ignore[attr-defined]
    assert judge.closed
    assert "is not used" not in error
    assert judge.graded[0].rubric is not None
    assert judge.graded[0].rubric.descriptions == (("1", "no"), ("5", "yes it is"))
    assert "mean score        3.000 (standard deviation 0.000)" in output
    assert output.splitlines()[-1] == str(out)
    assert "grading: 5 of 5 rows (100 %)" in error
    assert len(out.read_text().splitlines()) == 6


def test_a_rubric_for_all_rows_says_that_theirs_are_not_used(tmp_path: Path, tract: Command, judge: StandIn) -> None:
    (tmp_path / "in.jsonl").write_text('{"instruction": "a", "response": "1", "criteria": "Long?"}\n')
    (tmp_path / "rubric.yaml").write_text("criteria: Right?")
    _, _, error = tract("grade", tmp_path / "in.jsonl", "-o", tmp_path / "o.csv", "--judge", "j", "--rubric", tmp_path / "rubric.yaml")
    assert f"{tmp_path / 'in.jsonl'}: the column 'criteria' is not used, since --rubric is for all rows" in error


def test_nothing_is_needed_of_the_working_directory_or_of_a_home(
    tmp_path: Path, tract: Command, judge: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot be written to, no HOME, and files behind symbolic links, with a mark of its encoding and another delimiter."""
    work, real = tmp_path / "work", tmp_path / "real"
    work.mkdir()
    real.mkdir()
    (real / "in.tsv").write_bytes("instruction\tresponse\nWär’s gut?\t3\n".encode("utf-8-sig"))
    (work / "in.tsv").symlink_to("../real/in.tsv")
    (work / "out").symlink_to("../real")
    work.chmod(0o555)
    monkeypatch.chdir(work)
    monkeypatch.delenv("HOME", raising=False)
    status, output, error = tract("grade", "in.tsv", "-o", "out/graded.csv", "--judge", "j")
    assert status == 0, error
    assert output.splitlines()[-1] == "out/graded.csv"
    assert judge.graded[0].instruction == "Wär’s gut?"
    assert sorted(path.name for path in work.iterdir()) == ["in.tsv", "out"]
    assert sorted(path.name for path in real.iterdir()) == ["graded.csv", "in.tsv"]
    status, _, error = tract("inspect", "in.tsv", "--judge", "")
    assert (status, error) == (2, "error: argument --judge: '' is empty, as a shell variable is that is not set; give a path or a name; "
                                  "see `tract inspect --help`\n")  # fmt: skip


@pytest.mark.parametrize("option", ["-o", "--judge", "--rubric", "--prompt", "--base-model", "--cache-dir", "FILE"])
def test_a_path_of_each_option_takes_the_home_folder_and_is_not_blank(
    option: str, tmp_path: Path, tract: Command, judge: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "in.jsonl", 3)
    (tmp_path / "it").write_text("criteria: Right?\n")

    def command(given: str) -> tuple[int, str, str]:
        words = {"FILE": str(tmp_path / "in.jsonl"), "-o": str(tmp_path / "o.csv"), "--judge": "j", option: given}
        return tract("grade", words.pop("FILE"), *(word for pair in words.items() for word in pair))

    file = {"FILE": "in.jsonl", "-o": "other.csv"}.get(option, "it")
    assert command(f"~/{file}")[0] in (0, 1)
    named = {"--judge": "judge", "--prompt": "prompt", "--base-model": "base_model", "--cache-dir": "cache_dir"}.get(option)
    if named is not None:
        assert judge.options[named] == str(tmp_path / "it")  # type: ignore[attr-defined]
    assert (tmp_path / "other.csv").exists() is (option == "-o")
    status, _, error = command("")
    assert status == 2
    assert "'' is empty, as a shell variable is that is not set" in error
    assert len(error.splitlines()) == 1


def test_exit_status_1_if_no_row_got_a_score(tmp_path: Path, tract: Command, judge: StandIn) -> None:
    status, output, _ = tract("grade", write(tmp_path / "in.jsonl", 1), "-o", tmp_path / "out.jsonl", "--judge", "j")
    assert status == 1
    assert "none: no row got a score" in output
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_a_killed_command_goes_on_and_ends_up_the_same(tmp_path: Path, tract: Command, judge: StandIn) -> None:
    source = write(tmp_path / "in.jsonl", 300)
    arguments = [source, "-o", tmp_path / "killed.jsonl", "--judge", "j"]
    killed = run_and_end(ROOT, *arguments, end_at=200, end_by=signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    partial = tmp_path / "killed.jsonl.partial"
    assert not (tmp_path / "killed.jsonl").exists()
    kept = partial.read_bytes()
    assert kept.count(b"\n") > 128  # synced at least every 64 rows
    partial.write_bytes(kept[:-10])  # as a power cut may leave it
    status, _, error = tract("grade", *arguments)
    assert status == 0
    rows = kept.count(b"\n") - 2
    assert f"{partial}: {rows} of 301 rows are graded already; going on" in error
    assert len(judge.graded) == 300 - rows
    assert not partial.exists()
    whole = StandIn()
    judge.graded = whole.graded
    tract("grade", source, "-o", tmp_path / "whole.jsonl", "--judge", "j")
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_ctrl_c_says_how_to_go_on_and_keeps_every_grade(tmp_path: Path, tract: Command, judge: StandIn) -> None:
    source, out = write(tmp_path / "in.jsonl", 60), tmp_path / "out.jsonl"
    ended = run_and_end(ROOT, source, "-o", out, "--judge", "j", "--restart", end_at=30, end_by=signal.SIGINT)
    assert ended.returncode == 130
    head = f"interrupted (SIGINT) in grading, after 30 of 61 rows, which are kept in {out}.partial; go on with: "
    assert head in ended.stderr
    command = shlex.split(ended.stderr.partition(head)[2])
    assert command[-6:] == ["grade", str(source), "-o", str(out), "--judge", "j"]  # without --restart
    tract(*command[-6:])
    assert len(judge.graded) == 30
    assert len(out.read_text().splitlines()) == 61


def test_another_command_is_refused_and_an_output_is_not_replaced(tmp_path: Path, tract: Command, judge: StandIn) -> None:
    source, out = write(tmp_path / "in.jsonl", 60), tmp_path / "out.jsonl"
    arguments = ["grade", source, "-o", out, "--judge", "j"]
    run_and_end(ROOT, *arguments[1:], end_at=30, end_by=signal.SIGINT)
    judge.fingerprint = "g"
    status, _, error = tract(*arguments, "--seed", 3)
    assert status == 2
    assert error == (
        f'error: {out}.partial: was begun with other work: --seed was null and is 3; the judge\'s fingerprint was "f" and is "g"; '
        "remove the file or give --restart to begin anew, or give another output\n"
    )
    assert tract(*arguments, "--restart", "--batch-size", 4)[0] == 0
    before = out.read_bytes()
    assert "is there already; it is left as it is; give --overwrite" in tract(*arguments)[2]
    assert out.read_bytes() == before
    assert tract(*arguments, "--overwrite", "--limit", 2)[0] == 0
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("criteria: x\nscale: 5", "rubric.scale: unknown; accepted are criteria, descriptions"),
        ("descriptions: {1: a}", "rubric.criteria: is missing"),
        ("criteria: ' '", "rubric.criteria: is blank"),
        ("criteria: x\ndescriptions: {one: a}", "rubric.descriptions: 'one' is no score"),
        ("criteria: x\ndescriptions: {1: a, 1.0: b}", "the key 1.0 stands twice"),
        ("criteria: x\ncriteria: y", "the key criteria stands twice"),
        ("- a", "holds a list; a mapping with criteria and descriptions is accepted"),
        ("a: [", "is no YAML"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_rubric_that_is_none_is_one_line(content: str | None, message: str, tmp_path: Path, tract: Command, judge: StandIn) -> None:
    if content is not None:
        (tmp_path / "r.yaml").write_text(content)
    status, _, error = tract("grade", "x.jsonl", "-o", "y.jsonl", "--judge", "j", "--rubric", tmp_path / "r.yaml")
    assert (status, len(error.splitlines())) == (2, 1)
    assert error.startswith(f"error: --rubric {tmp_path / 'r.yaml'}: ")
    assert message in error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("answer", "'answer' is no FIELD=COLUMN pair, e.g. instruction=question response=answer"),
        ("respons=a", "unknown field 'respons'; did you mean 'response'? accepted are instruction, response, reference_answer"),
        ("score_descriptions.x=a", "'score_descriptions.x' names no score"),
        ("id=a id=b", "id is given twice, as 'a' and 'b'"),
    ],
)
def test_columns_that_are_none_are_one_line(given: str, message: str, tract: Command, judge: StandIn) -> None:
    status, _, error = tract("grade", "x.jsonl", "-o", "y.jsonl", "--judge", "j", "--columns", *given.split())
    assert (status, len(error.splitlines())) == (2, 1)
    assert error.startswith("error: --columns: ")
    assert message in error


def test_rows_that_failed_are_graded_again_by_the_same_command(tmp_path: Path, tract: Command, judge: StandIn) -> None:
    source, out = write(tmp_path / "in.jsonl", 8), tmp_path / "out.jsonl"
    command = ["grade", source, "-o", out, "--judge", "j"]
    status, output, error = tract(*command)
    assert (status, judge.graded[3].response) == (0, "broken")
    assert "errors 2 x the model failed 1 x in.jsonl:9: not JSON" in " ".join(output.split())
    assert "rows without a score: 5, errors: 3; the same command with --retry-failed grades these 5 again" in output
    assert not [line for line in error.splitlines() if "failed" in line]  # none for each row
    assert tract(*command)[2].endswith("--retry-failed for its rows without a score, or another output\n")
    assert "give one of the two" in tract(*command, "--retry-failed", "--overwrite")[2]
    judge.graded.clear()
    source.write_text(source.read_text().replace("broken", "5").replace("no mass", "1"))
    status, output, error = tract(*command, "--retry-failed")
    assert status == 0
    assert f"{out}: 5 of 9 rows have no score (low_score_mass: 2, error: 3); these are graded again\n" in error
    assert [request.response for request in judge.graded] == ["1", "5", "1", "5"]
    assert [json.loads(line)["judge_score"] for line in out.read_text().splitlines()] == [1.0, 3.0, 3.0, 5.0, 1.0, 3.0, 2.0, 5.0, None]
    out.write_text("".join(f"{line}\n" for line in out.read_text().splitlines()[:8]))
    status, output, _ = tract(*command, "--retry-failed", "--limit", 8)
    assert (status, output) == (0, f"{out}: each of its 8 rows has a score; nothing was graded\n")


def test_a_rubric_for_all_rows_as_text(tmp_path: Path, tract: Command, judge: StandIn) -> None:
    (tmp_path / "in.jsonl").write_text('{"instruction": "a", "response": "1", "rubric": "Long?"}\n')
    (tmp_path / "rubric.md").write_text("Right?\r\n\r\n| Score | Meaning |\r\n|--|--|\r\n| 1 | no |\r\n| 5 | yes |\r\n")
    arguments = ["grade", tmp_path / "in.jsonl", "--judge", "j", "--rubric"]
    _, _, error = tract(*arguments, tmp_path / "rubric.md", "-o", tmp_path / "a.jsonl")
    assert f"{tmp_path / 'in.jsonl'}: the column 'rubric' is not used, since --rubric is for all rows" in error
    assert "criterion without scores" not in error
    assert judge.graded[-1].rubric == Rubric("Right?", {1: "no", 5: "yes"})
    (tmp_path / "rubric.txt").write_text("\ufeffRight?\n")
    _, _, error = tract(*arguments, tmp_path / "rubric.txt", "-o", tmp_path / "b.jsonl")
    assert error.count("rubric.txt: is a criterion without scores; the judge's own are given: 1 to 5") == 1
    assert judge.graded[-1].rubric == Rubric("Right?\n")
    (tmp_path / "rubric.txt").write_text("Right? (yes/no)")
    status, _, error = tract(*arguments, tmp_path / "rubric.txt", "-o", tmp_path / "c.jsonl")
    assert (status, len(error.splitlines())) == (2, 1)
    assert "rubric.txt: rubric: names scores by words: '(yes/no)'; write each score on a line of its own" in error
    (tmp_path / "rubric.yaml").write_text("Right?\n")
    _, _, error = tract(*arguments, tmp_path / "rubric.yaml", "-o", tmp_path / "c.jsonl")
    assert (
        "holds a str; a mapping with criteria and descriptions is accepted; a file with the text of a rubric ends in .txt or .md" in error
    )


def test_a_file_of_several_scales_has_a_mean_of_each(
    tmp_path: Path, tract: Command, judge: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def graded(request: GradeRequest) -> Grade:
        """The best score for sure, of the scale of the request's rubric."""
        grid = ScoreGrid(request.rubric.labels) if request.rubric and request.rubric.labels else judge.grid
        best = Judgement("x", 0, 0, (), "f", CUE, tuple(float(label == grid.labels[-1]) for label in grid.labels), None, None)
        return grade_of([best], grid, " ", request_id="x", predictor="rail", least_score_mass=0.5, calibration=None)

    monkeypatch.setattr("graders.grade_for", graded)
    rubrics: list[object] = ["Right?\n0 = no\n3 = yes", {"criteria": "Right?", "descriptions": {"1": "no", "10": "yes"}}, None]
    rows = [{"instruction": "a", "response": "1", "rubric": rubric} for rubric in rubrics]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for suffix in ("jsonl", "csv", "parquet"):
        status, output, _ = tract("grade", tmp_path / "in.jsonl", "--judge", "j", "-o", tmp_path / f"out.{suffix}")
        assert status == 0
        found = dict(re.split(" {2,}", line.strip(), maxsplit=1) for line in output.split("\n\n")[0].splitlines())
        assert (found["mean score"], found["of 0, 3"]) == ("none over 3 scales; of each:", "3.000, rows: 1")
        assert (found["of 1, 10"], found["of 1 to 5"], found["normalized"][:5]) == ("10.000, rows: 1", "5.000, rows: 1", "1.000")

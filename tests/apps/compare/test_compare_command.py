"""``tract compare``: what is written, errors as one line, and a start that loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import main_of
from made_runs import NO_RECORD, make_run

from tract.apps.compare import command

ROOT = Path(__file__).resolve().parents[3]
main = main_of(command)


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The line that ends the command."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_the_command_prints_a_table_and_writes_its_files(study: Path, tmp_path: Path) -> None:
    """As a process of its own; what loads models stays unloaded."""
    code = (
        "import json, sys\n"
        "from tract.apps.cli.main import main\n"
        "main(['compare', *sys.argv[1:]])\n"
        "print(json.dumps(sorted({'torch', 'lightning', 'transformers', 'wandb', 'datasets'} & set(sys.modules))))"
    )
    arguments = [study / "tract", study / "tract" / "seed0", "--out", tmp_path / "out", "--metrics", "rmse, pearson_r", "--resamples", "50"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "test: 24 items, 8 questions"
    assert json.loads(lines[-1]) == []
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"comparison.md", "comparison.csv", "index.html", "bars_test.png"} < written
    assert {Path(line).name for line in lines if line.startswith(str(tmp_path))} == written


def test_help_loads_no_numbers() -> None:
    code = (
        "import sys\nfrom tract.apps.cli.main import main\n"
        "try:\n    main(['compare', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'numpy', 'scipy', 'pyarrow', 'matplotlib', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    assert "tract compare runs/tract_quickstart" in done.stdout


def test_mistakes_are_one_line(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere: no such folder" in fails(capsys, tmp_path / "nowhere")
    (tmp_path / "file.jsonl").write_text("")
    assert "file.jsonl: is a file; give runs" in fails(capsys, tmp_path / "file.jsonl")
    assert "no run to compare; looked for" in fails(capsys, tmp_path)
    assert "--confidence: 95 is not between 0 and 1" in fails(capsys, study, "--confidence", 95)
    assert "--resamples: -1 is negative" in fails(capsys, study, "--resamples", -1)
    assert "--metrics: no name is given" in fails(capsys, study, "--metrics", ",")
    assert "--metrics: there is no 'r'" in fails(capsys, study, "--metrics", "r")
    assert "--baseline: there is no variant 'x'; there are 'ce_only'" in fails(capsys, study / "tract", "--baseline", "x")
    assert "--predictor: no run was read by 'x'" in fails(capsys, study / "tract", "--predictor", "x")


def test_a_folder_that_cannot_be_written_to_is_one_line(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    line = fails(capsys, study / "tract" / "seed1", "--resamples", "0", "--metrics", "rmse", "--out", tmp_path / "file")
    assert "--out: cannot write" in line
    assert (tmp_path / "file").read_text() == ""


def test_nothing_is_added_to_a_product(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    product = make_run(tmp_path, 0.5, records=NO_RECORD).product
    before = sorted(product.iterdir())
    (link,) = (tmp_path / "runs" / "tract" / "seed0").iterdir()
    main([str(link), "--metrics", "rmse"])
    assert sorted(product.iterdir()) == before
    assert str(link.parent / "comparison" / "index.html") in capsys.readouterr().out

"""Memory does not grow with the data set: examples and token ids stay on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Peak memory of the process's own in MiB while reading, splitting and tokenising, and looking every training item up once.
# Pages of the mapped Arrow files are not counted: the system takes them back when it needs them.
SCRIPT = """
import sys, threading
from hydra import compose, initialize_config_dir
from tract.pipeline.stages.fit import build
from tract.pipeline.stages.prepare import prepare
from tract.pipeline.validation import validate
peak, done = 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.02):
        with open("/proc/self/status") as status:
            peak = max(peak, *(int(line.split()[1]) for line in status if line.startswith("RssAnon")))
watcher = threading.Thread(target=watch)
watcher.start()
with initialize_config_dir(version_base="1.3", config_dir=sys.argv[1]):
    cfg = validate(compose("train", ["model=tiny", f"paths.cache={sys.argv[2]}", f"data.source.n_questions={sys.argv[3]}"]))
data = prepare(cfg)
module, loaders = build(cfg, data)
for batch in loaders.train_dataloader():
    assert batch.trained_tokens > 0
done.set()
watcher.join()
print(len(data.store), peak / 1024)
"""


def peak_mib(cache: Path, questions: int) -> float:
    """Peak memory of a process that prepares and reads 2 * questions + 100 examples."""
    command = [sys.executable, "-c", SCRIPT, str(ROOT / "conf"), str(cache), str(questions)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    examples, peak = done.stdout.splitlines()[-1].split()
    assert int(examples) == 2 * questions + 100
    return float(peak)


@pytest.mark.kills  # it takes minutes
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc/self/status, which Linux has")
def test_memory_is_flat_in_the_number_of_examples(tmp_path: Path) -> None:
    """From 1,000 to 20,000 examples."""
    small = peak_mib(tmp_path, 450)
    large = peak_mib(tmp_path, 9_950)
    assert large - small < 40

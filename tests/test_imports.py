"""Imports go one way, as docs/design.md draws it; a new module must be placed in exactly one row."""

from __future__ import annotations

import ast
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Row -> (its modules, the rows that it may use beside itself). A module belongs to the one row that it matches.
ROWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "package": (("tract", "tract.import_order"), ()),
    "interruption": (("tract.interruption",), ()),
    "schema": (
        (
            "tract.errors",
            "tract.containers",
            "tract.counts",
            "tract.durable",
            "tract.schema",
            "tract.given_paths",
            "tract.inside",
            "tract.masking",
            "tract.model_name",
            "tract.near_names",
            "tract.quiet_libraries",
            "tract.records",
            "tract.command_line",
            "tract.terminal",
        ),
        (),
    ),
    "text": (
        (
            "tract.score_grid",
            "tract.score_words",
            "tract.score_statement",
            "tract.headings",
            "tract.perturbations",
            "tract.prompts",
            "tract.text_encoder",
            "tract.layout",
            "tract.fitting",
        ),
        ("schema",),
    ),
    "tensors": (("tract.predictors", "tract.objective", "tract.metrics"), ("schema", "text")),
    "finite": (("tract.finite",), ()),
    "forward": (
        ("tract.attention", "tract.head", "tract.forward", "tract.small_model", "tract.exactness"),
        ("schema", "text"),
    ),
    "sampling": (
        (
            "tract.generation",
            "tract.generation.sampling",
            "tract.generation.judgement",
            "tract.generation.room",
            "tract.generation.stopping",
            "tract.generation.batching",
            "tract.generation.backend",
        ),
        ("schema", "text"),
    ),
    "evaluation": (("tract.evaluation", "tract.evaluation.*"), ("schema", "text", "sampling")),
    "config": (
        (
            "tract.config",
            "tract.config_arguments",
            "tract.config_comments",
            "tract.config_devices",
            "tract.config_package",
            "tract.config_rules",
            "tract.validation",
        ),
        ("schema", "text", "tensors", "sampling", "evaluation"),
    ),
    "ranks": (("tract.ranks", "tract.sharding"), ()),
    "data": (("tract.data", "tract.data.*"), ("schema", "text")),
    "estimate": (("tract.estimate", "tract.estimate.*"), ()),
    "modeling": (("tract.modeling", "tract.serving"), ("schema", "finite", "forward", "config")),
    "preview": (("tract.preview",), ("schema", "text", "tensors", "data")),
    "lit_module": (("tract.lit_module", "tract.split_metrics"), ("schema", "text", "tensors", "finite", "forward", "ranks", "data")),
    "backends": (
        (
            "tract.generation.slots",
            "tract.generation.shared_keys",
            "tract.generation.padded_keys",
            "tract.generation.live",
            "tract.generation.packed",
            "tract.generation.hf",
            "tract.generation.rows",
            "tract.generation.exactness",
            "tract.generation.paths",
            "tract.generation.engine",
            "tract.generation.vllm_engine",
            "tract.generation.server_engine",
            "tract.generation.chat_engine",
            "tract.generation.chat_requests",
            "tract.generation.chat_answers",
            "tract.generation.chat_score",
            "tract.generation.chat_scales",
            "tract.generation.chat_numbers",
            "tract.generation.chat_tokens",
            "tract.generation.thoughts",
            "tract.generation.waiting",
        ),
        ("schema", "text", "tensors", "finite", "forward", "sampling", "ranks"),
    ),
    "judge_settings": (("tract.judge", "tract.judge.settings", "tract.judge.calibration"), ("schema", "text", "sampling", "evaluation")),
    "stages": (
        ("tract.stages", "tract.stages.*"),
        (
            "package",
            "interruption",
            "schema",
            "text",
            "tensors",
            "forward",
            "sampling",
            "evaluation",
            "config",
            "ranks",
            "data",
            "estimate",
            "modeling",
            "preview",
            "lit_module",
            "backends",
            "judge_settings",
        ),
    ),
    "judge": (
        (
            "tract.judge.arguments",
            "tract.judge.asking",
            "tract.judge.backends",
            "tract.judge.chat_models",
            "tract.judge.engine_worker",
            "tract.judge.grades",
            "tract.judge.judge",
            "tract.judge.loading",
            "tract.judge.local_worker",
            "tract.judge.measured",
            "tract.judge.prometheus",
            "tract.judge.relative",
            "tract.judge.requests",
            "tract.judge.runs",
            "tract.judge.trained_on",
            "tract.judge.training_rows",
            "tract.judge.wording",
            "tract.judge.worker",
        ),
        ("package", "schema", "text", "sampling", "evaluation", "config", "data", "modeling", "backends", "judge_settings", "stages"),
    ),
    "sweeps": (
        ("tract.compare", "tract.compare.runs", "tract.compare.variants", "tract.compare.best"),
        ("package", "schema", "evaluation", "config", "stages"),
    ),
    "entry": (
        ("tract.entry", "tract.config_help", "tract.job_log", "tract.multirun", "tract.job_variant"),
        ("package", "interruption", "schema", "config", "sweeps"),
    ),
    "dashboard": (("tract.dashboard",), ("package", "schema", "entry", "stages")),
    "compare": (
        (
            "tract.compare.__main__",
            "tract.compare.command",
            "tract.compare.comparison",
            "tract.compare.csv_table",
            "tract.compare.curves",
            "tract.compare.differences",
            "tract.compare.files",
            "tract.compare.intervals",
            "tract.compare.options",
            "tract.compare.page",
            "tract.compare.plots",
            "tract.compare.readings",
            "tract.compare.results",
            "tract.compare.tables",
        ),
        ("package", "schema", "evaluation", "config", "stages", "sweeps", "entry"),
    ),
    "export": (
        ("tract.export", "tract.export.*"),
        ("package", "schema", "text", "sampling", "config", "modeling", "judge_settings", "stages", "judge", "entry"),
    ),
    "grading": (("tract.grading", "tract.grading.*"), ("schema", "text", "evaluation", "data", "judge_settings", "judge")),
    "server": (("tract.server", "tract.server.*"), ("package", "interruption", "schema", "text", "judge_settings", "judge", "entry")),
    "cli": (
        ("tract.cli", "tract.cli.*", "tract.__main__"),
        (
            "package",
            "interruption",
            "schema",
            "text",
            "tensors",
            "sampling",
            "evaluation",
            "config",
            "data",
            "preview",
            "stages",
            "judge_settings",
            "judge",
            "entry",
            "sweeps",
            "compare",
            "export",
            "grading",
            "server",
        ),
    ),
    "job": (("tract.job",), ("package", "interruption", "schema", "ranks", "entry", "stages", "config")),
}
# (module, the only module of a forbidden row that it may import)
SINGLE_MODULES = {
    ("tract.data.steps", "tract.objective"): "micro-batches carry StepTotals",
    ("tract.data.batches", "tract.objective"): "batches carry StepTotals",
    # The names of the package, found when they are asked for; here for those who check types.
    ("tract", "tract.judge.grades"): "Grade, CotGrade",
    ("tract", "tract.judge.judge"): "Judge",
    ("tract", "tract.judge.relative"): "Comparison",
    ("tract", "tract.judge.requests"): "GradeRequest",
    ("tract", "tract.schema"): "Rubric",
}
# Of the stages, comparisons read products and nothing else, so that they load no model's libraries.
READING_ONLY = {
    "sweeps": ("tract.stages.products", "tract.stages.fit_stages"),
    "compare": ("tract.stages.products", "tract.stages.fit_stages"),
    "export": ("tract.stages.judge_choice",),
}
# Who alone may import a library.
LIBRARIES = {"hydra": ("stages", "entry"), "wandb": ("stages", "dashboard"), "vllm": ("backends",), "openai": ("backends",)}
SCRIPTS = ("train", "generate_cot", "evaluate")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted((ROOT / "tract").rglob("*.py"))}


def rows_of(module: str) -> list[str]:
    return [row for row, (patterns, _) in ROWS.items() if any(fnmatchcase(module, pattern) for pattern in patterns)]


def imports_of(source: str, module: str, is_package: bool) -> set[str]:
    """Every module that is imported anywhere in the source: at the top, inside functions, under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            base = (
                ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
                if node.level
                else node.module or ""
            )
            # `from tract.data import fields` imports a module, `from tract.errors import ConfigError` a name.
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return found


def violations(module: str, imported: set[str]) -> list[str]:
    row = rows_of(module)[0]
    problems = []
    for name in sorted(imported):
        library = name.split(".")[0]
        if library in LIBRARIES and row not in LIBRARIES[library]:
            problems.append(f"{module} imports {name}; only {', '.join(LIBRARIES[library])} may")
        if library in SCRIPTS:
            problems.append(f"{module} imports the script {name}")
        if library != "tract" or (module, name) in SINGLE_MODULES:
            continue
        other = rows_of(name)
        if other[:1] == ["stages"] and name not in READING_ONLY.get(row, (name,)):
            problems.append(f"{module} (row {row}) imports {name}; of the stages only {', '.join(READING_ONLY[row])} may be used")
        if not other or other[0] not in (row, *ROWS[row][1]):
            problems.append(f"{module} (row {row}) imports {name} (row {', '.join(other) or 'none'})")
    return problems


def test_modules_are_found() -> None:
    assert {"tract.entry", "tract.data.rubric_check", "tract.stages.fit"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_module_is_in_one_row_and_imports_downwards(module: str) -> None:
    assert len(rows_of(module)) == 1, (
        f"{module} is in the rows {rows_of(module)}; place it in exactly one row of ROWS and of docs/design.md"
    )
    path = MODULES[module]
    imported = imports_of(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
    assert violations(module, imported) == []


def test_every_single_exception_is_still_needed() -> None:
    for module, name in SINGLE_MODULES:
        path = MODULES[module]
        assert name in imports_of(path.read_text(encoding="utf-8"), module, path.name == "__init__.py"), (
            f"{module} does not import {name} any more"
        )


def test_rows_have_no_cycle() -> None:
    names = list(ROWS)
    assert all(names.index(below) < names.index(row) for row, (_, uses) in ROWS.items() for below in uses)


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("tract.objective", "def f():\n    from tract.stages.fit import fit", "tract.objective (row tensors) imports tract.stages.fit"),
        ("tract.score_grid", "if TYPE_CHECKING:\n    import tract.objective", "tract.score_grid (row text) imports tract.objective"),
        ("tract.data.tokens", "from tract.objective import Objective", "tract.data.tokens (row data) imports tract.objective"),
        ("tract.data.store", "from ..modeling import load_model", "tract.data.store (row data) imports tract.modeling"),
        ("tract.data.rubric_check.writer", "from ...stages import fit", "imports tract.stages.fit"),
        ("tract.modeling", "import hydra.utils", "tract.modeling imports hydra.utils; only stages, entry may"),
        ("tract.lit_module", "import wandb", "tract.lit_module imports wandb; only stages, dashboard may"),
        ("tract.stages.fit", "from train import main", "tract.stages.fit imports the script train"),
        (
            "tract.compare.runs",
            "from tract.stages.evaluate import log",
            "imports tract.stages.evaluate; of the stages only tract.stages.products",
        ),
        (
            "tract.evaluation.cells",
            "import tract.compare.tables",
            "tract.evaluation.cells (row evaluation) imports tract.compare.tables (row compare)",
        ),
    ],
)
def test_an_upward_import_is_seen(module: str, source: str, expected: str) -> None:
    found = violations(module, imports_of(source, module, is_package=False))
    assert len(found) == 1
    assert expected in found[0]

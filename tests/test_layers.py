"""A module imports only what stands to its left on the way of the data; Ray is imported by the actors (and what drives them) only."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "capray"

# scenario -> trial (network <-> nodes: replicas, clients) -> record -> checkers -> measurement -> sweep table -> plots -> report
LAYERS = [
    ["__init__", "errors", "streams", "clock", "tcp", "wire", "heap", "tables"],
    ["record"],
    ["contract"],
    ["replica", "distributions", "soundness"],
    ["policies", "links", "faults", "workload", "history"],
    ["scenario", "testing", "client"],
    ["draws"],
    ["lanes"],
    ["transport"],
    ["network"],
    ["disk"],
    ["machine"],
    ["node"],
    ["trial"],
    ["windows"],
    ["checkers"],
    ["measures"],
    ["watchdog"],
    ["engines"],
    ["actors"],
    ["fleet"],
    ["cluster", "store", "stats"],
    ["until"],
    ["sweep", "recorded", "differences"],
    ["plots"],
    ["report"],
    ["studies"],
    ["sweeping", "mainjob", "catalogue", "checkcmd", "baselines"],
    ["export", "summary"],
    ["onetrial", "compare", "bench", "experiment"],
    ["cli", "__main__"],
]
# Modules that belong to a place of that list under another name.
PLACES = {
    "curves": "bench", "edn": "history", "shiviz": "history", "rounds": "actors", "raycluster": "actors", "byhand": "actors", "replay": "store", "testing_wire": "testing",
    "figures": "plots", "reporting": "report", "metrics": "measures",
}
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def place(module: str) -> str:
    """`capray.policies.ring` -> `policies`."""
    parts = module.split(".")
    top = parts[1] if len(parts) > 1 else "__init__"
    return PLACES.get(top, top)


parsed = cache(lambda path: ast.parse(path.read_text()))


@cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, at the top of the file) of every import of the file."""
    tree = parsed(path)
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, id(node) in top))
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_left(path):
    mine = place("capray." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    assert mine in RANK, f"{mine} has no place in the layers: add it"
    for module, top in imports(path):
        if module == "capray" or not module.startswith("capray.") or not top:
            continue
        assert RANK[place(module)] <= RANK[mine], f"{path.name} imports {module}, which stands to its right"


def test_ray_is_imported_only_by_the_actors_and_the_baselines():
    users = {path.stem for path in FILES for module, _ in imports(path) if module.split(".")[0] == "ray"}
    assert users <= {"actors", "fleet", "rounds", "raycluster", "byhand", "baselines", "pbs_study"}  # pbs_study runs batches, not trials, as tasks


def test_replicas_see_no_clock_no_randomness_no_network_and_no_ray():
    forbidden = {"ray", "time", "random", "datetime", "secrets", "os", "socket", "threading", "asyncio"}
    for path in FILES:
        if "policies" not in path.parts or path.stem == "__init__":
            continue
        for module, _ in imports(path):
            assert module.split(".")[0] not in forbidden, f"{path.name} imports {module}"
            assert module not in ("capray.network", "capray.node", "capray.trial", "capray.faults", "capray.scenario"), f"{path.name} imports {module}"


def test_files_and_functions_keep_their_size():
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 450, f"{path.name} has {text.count(chr(10))} lines"
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno + 1 <= 60, f"{path.name}: {node.name} is too long"

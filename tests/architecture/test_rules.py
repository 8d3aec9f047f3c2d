"""Rules of the architecture that a reviewer would otherwise have to remember."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("stream_trainer", "serving", "monitors", "infra", "examples")
MODULES = sorted(p.relative_to(ROOT) for package in PACKAGES for p in (ROOT / package).rglob("*.py"))

MAY_IMPORT_PYSPARK = {
    "stream_trainer/query.py",
    "stream_trainer/joining/query.py",
    "stream_trainer/worker_daemon.py",
    "stream_trainer/joining/processor.py",
    "stream_trainer/joining/state.py",
    "stream_trainer/joining/worker_daemon.py",
    "infra/spark.py",
    "monitors/query.py",
}
SERIALISERS = {"pickle", "cPickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
MAX_LINES = 400
MAX_FUNCTION_LINES = 60


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield other
                yield from run_nodes(other)
            continue
        yield child
        yield from run_nodes(child)


def imported(path: Path) -> set[str]:
    """The top packages that a module imports at run time, anywhere in it, and by name through importlib."""
    found: set[str] = set()
    for node in run_nodes(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and called(node) in ("importlib.import_module", "import_module", "__import__"):
            found |= {str(a.value).split(".")[0] for a in node.args[:1] if isinstance(a, ast.Constant)}
    return found


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def ids(paths: list[Path]) -> list[str]:
    return [p.as_posix() for p in paths]


def test_the_packages_are_found() -> None:
    assert len(MODULES) > 60
    assert set(ids(MODULES)) >= MAY_IMPORT_PYSPARK


@pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))
def test_pyspark_is_imported_only_where_it_says_so(path: Path) -> None:
    if path.as_posix() not in MAY_IMPORT_PYSPARK:
        assert "pyspark" not in imported(path)


@pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))
def test_the_core_does_not_know_what_is_built_on_it(path: Path) -> None:
    if path.parts[0] == "stream_trainer" and path.name != "cli.py":
        assert not imported(path) & {"serving", "monitors", "infra", "examples", "tests"}


@pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))
def test_serving_and_monitors_do_not_know_each_other(path: Path) -> None:
    others = {"serving": {"monitors", "infra", "examples"}, "monitors": {"serving", "examples"}}
    assert not imported(path) & others.get(path.parts[0], set())


@pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))
def test_nothing_that_can_run_code_is_deserialised(path: Path) -> None:
    assert not imported(path) & SERIALISERS
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = called(node)
            assert name not in ("torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "eval", "exec"), name
            assert not [k for k in node.keywords if k.arg == "allow_pickle"], name
            assert not name.endswith(("read_pickle", "to_pickle")), name
        if isinstance(node, ast.ImportFrom) and node.module == "torch":
            assert not {alias.name for alias in node.names} & {"load", "save"}


@pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))
def test_only_the_settings_read_the_environment(path: Path) -> None:
    if path.as_posix() == "stream_trainer/settings.py":
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in ("os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv")
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not {alias.name for alias in node.names} & {"environ", "environb", "getenv", "putenv"}


def test_evidently_is_imported_in_one_file_of_the_monitors() -> None:
    found = [p.as_posix() for p in MODULES if "evidently" in imported(p)]
    assert len(found) == 1
    assert found[0].startswith("monitors/")


@pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))
def test_no_file_and_no_function_is_too_long_to_read(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= MAX_LINES
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"

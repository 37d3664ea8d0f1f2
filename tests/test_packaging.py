"""What is installed: one package from three folders, light to import, with its entry points and data."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module, metadata, resources
from pathlib import Path
from typing import Any

import pytest

import perceiver_io

DISTRIBUTION = "perceiver-io-toolkit"
ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"perceiver_io": "perceiver_io", "perceiver_io.adapters": "adapters", "perceiver_io.tasks": "tasks"}
CLASS_GROUPS = ("perceiver_io.adapters", "perceiver_io.decoders", "perceiver_io.tasks")
OPTIONAL = (
    "PIL",
    "accelerate",
    "av",
    "datasets",
    "matplotlib",
    "sklearn",
    "tensorboard",
    "timm",
    "torchaudio",
    "torchmetrics",
    "torchvision",
)

in_checkout = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").exists(), reason="pyproject.toml is not beside tests/"
)


def pyproject() -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def files_of(package: str, folder: Path, pattern: str) -> Iterator[Path]:
    """The files below one of the three folders, without those of another that lies or is linked in it."""
    for path in folder.rglob(pattern):
        inside = path.relative_to(folder).parts[0]
        if f"{package}.{inside}" not in FOLDERS:
            yield path


def packages_on_disk() -> Iterator[str]:
    for package, name in FOLDERS.items():
        folder = ROOT / name
        for path in files_of(package, folder, "__init__.py"):
            yield ".".join((package, *path.parent.relative_to(folder).parts))


def entry_points() -> list[metadata.EntryPoint]:
    # Not metadata.entry_points(): plug-ins that happen to be installed may be broken without our doing.
    return list(metadata.distribution(DISTRIBUTION).entry_points)


def imported_modules(source: Path) -> Iterator[str]:
    """Every absolute module name that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_version_is_that_of_the_distribution() -> None:
    assert perceiver_io.__version__ == metadata.version(DISTRIBUTION)


@pytest.mark.parametrize(
    "module",
    [
        f"perceiver_io.{name}"
        for name in (
            *("adapters", "cli", "data", "media", "pictures", "published", "running", "running.runner"),
            *("tasks", "tasks.classification", "testing"),
        )
    ],
)
def test_subpackages_import(module: str) -> None:
    assert import_module(module).__name__ == module


@in_checkout
def test_every_package_folder_is_listed() -> None:
    assert sorted(pyproject()["tool"]["setuptools"]["packages"]) == sorted(packages_on_disk())


@in_checkout
@pytest.mark.parametrize("link", ["adapters", "tasks"])
def test_symlinks_are_relative_and_lead_to_the_folders(link: str) -> None:
    path = ROOT / "perceiver_io" / link
    if not path.is_symlink():
        pytest.skip("this checkout has no symlinks")
    assert path.readlink() == Path("..", link)


@in_checkout
def test_installed_entry_points_are_those_of_pyproject() -> None:
    project = pyproject()["project"]
    declared = {(group, *item) for group, names in project["entry-points"].items() for item in names.items()}
    declared |= {("console_scripts", *item) for item in project["scripts"].items()}
    # An old editable install lacks the new ones: `make setup` renews it.
    assert {(entry.group, entry.name, entry.value) for entry in entry_points()} == declared


@pytest.mark.parametrize("entry_point", entry_points(), ids=lambda entry: f"{entry.group}-{entry.name}")
def test_entry_points_resolve(entry_point: metadata.EntryPoint) -> None:
    loaded = entry_point.load()
    if entry_point.group in CLASS_GROUPS:
        assert isinstance(loaded, type)
    elif entry_point.group == "console_scripts":
        assert callable(loaded)


def python(script: str) -> str:
    """Runs a script in a fresh interpreter in which warnings are errors, and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_leaves_optional_packages_alone() -> None:
    # What transformers imports itself (torchvision, and scikit-learn in some versions) is no doing of ours.
    theirs = (
        "from transformers import AutoImageProcessor, AutoModel, PreTrainedModel; before = set(sys.modules)"
    )
    ours = f"import perceiver_io; print({set(OPTIONAL)!r} & (sys.modules.keys() - before) or 'none')"
    assert python(f"import sys; {theirs}; {ours}") == "none"


def test_import_works_without_optional_packages() -> None:
    # None in sys.modules makes a package look as if it were not installed.
    script = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r})); import perceiver_io"
    assert python(f"{script}, perceiver_io.adapters, perceiver_io.tasks; print('done')") == "done"


def test_a_version_is_said_without_importing_what_takes_seconds() -> None:
    script = (
        "import sys; sys.argv[1:] = ['--version']; from perceiver_io_command import main; status = main()"
    )
    said = python(f"{script}; print(status, {{'torch', 'transformers', 'perceiver_io'}} & set(sys.modules))")
    assert said.splitlines() == [f"perceiver-io {perceiver_io.__version__}", "0 set()"]


# The rooms of the package that each room may not import. `cli` and `testing` may import all but tasks and adapters.
ABOVE_CORE = ("adapters", "tasks")
ABOVE_DATA = (*ABOVE_CORE, "running", "cli", "testing")
ABOVE_RUNNING = (*ABOVE_CORE, "cli", "testing")
ABOVE_ADAPTERS = (
    "tasks",
    "running",
    "data",
    "pictures",
    "cli",
    "testing",
)  # their processors read files of media
ABOVE = {
    "": ABOVE_CORE,
    "adapters": ABOVE_ADAPTERS,
    "cli": ABOVE_CORE,
    "data": (*ABOVE_DATA, "media", "pictures"),
    "media": (*ABOVE_DATA, "data", "pictures"),
    "pictures": (*ABOVE_DATA, "data", "media"),
    "published": (*ABOVE_DATA, "data", "media", "pictures"),
    "running": ABOVE_RUNNING,
    "tasks": ("cli", "testing"),
    "testing": ABOVE_CORE,
}


@pytest.mark.parametrize(("room", "above"), ABOVE.items(), ids=lambda value: value or "core")
def test_arrows_point_one_way(room: str, above: tuple[str, ...]) -> None:
    package = f"perceiver_io.{room}".rstrip(".")
    file = import_module(package).__file__
    assert file is not None
    sources = list(files_of(package, Path(file).parent, "*.py"))
    assert sources
    forbidden = {f"perceiver_io.{name}" for name in above}
    wrong = {
        f"{source.name} imports {module}"
        for source in sources
        for module in imported_modules(source)
        if ".".join(module.split(".")[:2]) in forbidden
    }
    assert wrong == set()


@pytest.mark.parametrize(
    ("room", "above"),
    [("", ("adapters", "media", *ABOVE_ADAPTERS)), ("adapters", ABOVE_ADAPTERS)],
    ids=["core", "adapters"],
)
def test_core_files_know_nothing_above_them(room: str, above: tuple[str, ...]) -> None:
    """Of the core, only the files themselves: the rooms beside them have arrows of their own."""
    file = import_module(f"perceiver_io.{room}".rstrip(".")).__file__
    assert file is not None
    forbidden = {f"perceiver_io.{name}" for name in above}
    wrong = {
        f"{source.name} imports {module}"
        for source in Path(file).parent.glob("*.py")
        for module in imported_modules(source)
        if ".".join(module.split(".")[:2]) in forbidden
    }
    assert wrong == set()


def test_data_files_are_in_the_package() -> None:
    assert resources.files("perceiver_io").joinpath("py.typed").is_file()
    recipes = resources.files("perceiver_io.tasks.image_classification").joinpath("recipes")
    assert "digits.yaml" in {recipe.name for recipe in recipes.iterdir()}

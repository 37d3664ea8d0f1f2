"""Installed packages: an entry point alone makes a class known, and a broken one takes nothing with it.

Each is a folder with modules and a `.dist-info`, as `pip` would leave it, put on the path of a fresh interpreter.
"""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import pytest

from perceiver_io import ComponentConfig, PerceiverIOConfig, PerceiverIOProcessor
from perceiver_io.cli import main
from perceiver_io.registry import ADAPTERS, DECODERS, PROCESSORS, TASKS
from perceiver_io.running.find_task import find_task
from perceiver_io.running.recipe import TrainingRecipe

LIDAR = """
    from dataclasses import dataclass
    import torch
    from torch import nn
    import perceiver_io as pio
    from perceiver_io.decoder import WHOLE_OUTPUT

    class LidarAdapter(pio.InputAdapter):
        @dataclass(frozen=True, kw_only=True)
        class Config(pio.ComponentConfig):
            width: int = 4

        def __init__(self, config):
            super().__init__()
            self.num_channels = self.num_content_channels = config.width

        def forward(self, x, mask=None):
            return pio.ByteArray(values=x, mask=mask, num_content_channels=self.num_channels)

    class MeanDecoder(pio.Decoder):
        @dataclass(frozen=True, kw_only=True)
        class Config(pio.DecoderConfig):
            width: int = 2

        def __init__(self, config, parts):
            super().__init__()
            self.layer = nn.Linear(parts.latent_channels, config.width)

        def forward(self, encoded, request=WHOLE_OUTPUT):
            return self.layer(encoded.latents.mean(dim=1))

    class LidarModel(pio.PerceiverIO):
        pass

    def config():
        return pio.PerceiverIOConfig(
            inputs={"scan": LidarAdapter.Config()},
            encoder=pio.EncoderConfig(num_latents=3, latent_channels=8, num_self_attends_per_block=1),
            outputs={"y": MeanDecoder.Config()},
        )
"""

TASK = """
    from fake_lidar.parts import LidarModel
    from perceiver_io.running.task import Task

    class LidarTask(Task):
        model_class = LidarModel

        def predict(self, loaded, inputs, options):
            return []

        def describe_prediction(self, prediction):
            return ""
"""

BROKEN = {
    "ImportError": "import no_such_module_at_all",
    "SyntaxError": "def broken(:",
    "RuntimeError": "raise RuntimeError('no device')",
    "AttributeError": "import os; os.no_such_name",
    "SystemExit": "import sys; sys.exit(3)",
    "KeyError": "{}['key']",
}


def install(folder: Path, name: str, modules: Mapping[str, str], entry_points: str) -> None:
    """Leaves a distribution in a folder, as an installer does."""
    for module, source in modules.items():
        path = folder / f"{module.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        if path.parent != folder:
            (path.parent / "__init__.py").touch()
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))


def install_lidar(folder: Path) -> None:
    install(
        folder,
        "fake-lidar",
        {"fake_lidar.parts": LIDAR, "fake_lidar.task": TASK, "fake_lidar.broken": "raise OSError('disk')"},
        """
        [perceiver_io.adapters]
        lidar = fake_lidar.parts:LidarAdapter
        lidar-broken = fake_lidar.broken:Adapter
        [perceiver_io.decoders]
        mean = fake_lidar.parts:MeanDecoder
        [perceiver_io.models]
        lidar = fake_lidar.parts
        [perceiver_io.tasks]
        lidar-task = fake_lidar.task:LidarTask
        """,
    )


def install_broken(folder: Path, source: str, *, groups: tuple[str, ...], name: str = "broken") -> None:
    module = f"fake_broken_{len(list(folder.iterdir()))}"
    entry_points = "".join(f"[perceiver_io.{group}]\n{name} = {module}:Nothing\n" for group in groups)
    install(folder, module.replace("_", "-"), {module: source}, entry_points)


def python(script: str, *paths: Path, warnings: str = "error") -> str:
    """Runs a script in a fresh interpreter that has these folders on its path, and returns what it printed."""
    path = os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", warnings, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_entry_point_alone_is_enough(tmp_path: Path) -> None:
    """No decorator: the class is found by its configuration, by its name, and by config.json."""
    install_lidar(tmp_path)
    saved = tmp_path / "model"
    script = f"""
        import sys, torch
        import perceiver_io as pio
        from perceiver_io.registry import ADAPTERS, TASKS
        assert "lidar" in ADAPTERS.names() and "lidar-task" in TASKS.names()
        assert "fake_lidar.broken" not in sys.modules and "fake_lidar.task" not in sys.modules
        import fake_lidar.parts as parts
        model = parts.LidarModel(parts.config()).eval()
        assert model.config.to_dict()["inputs"]["scan"]["type"] == "lidar"
        assert model.config.to_dict()["outputs"]["y"]["type"] == "mean"
        assert "fake_lidar.task" not in sys.modules
        torch.save(model({{"scan": torch.ones(2, 5, 4)}})["y"], {str(tmp_path / "y.pt")!r})
        model.save_pretrained({str(saved)!r})
        print("done")
    """
    assert python(script, tmp_path) == "done"
    values = json.loads((saved / "config.json").read_text())
    assert values["inputs"]["scan"] == {"type": "lidar", "provided_by": "fake-lidar 1.0", "width": 4}
    assert values["outputs"]["y"] == {"type": "mean", "provided_by": "fake-lidar 1.0", "width": 2}
    with pytest.raises(
        ValueError, match=r"no adapter 'lidar'.* version '1\.0' of the distribution 'fake-lidar'"
    ):
        PerceiverIOConfig.from_pretrained(saved)  # here it is not installed
    # Another version of the plug-in changes nothing.
    about = tmp_path / "fake_lidar-1.0.dist-info" / "METADATA"
    about.write_text(about.read_text().replace("Version: 1.0", "Version: 2.0"))
    script = f"""
        import torch
        import perceiver_io as pio
        config = pio.PerceiverIOConfig.from_pretrained({str(saved)!r})
        assert config.to_dict()["inputs"]["scan"]["provided_by"] == "fake-lidar 2.0"
        import fake_lidar.parts as parts
        assert config.inputs == parts.config().inputs and config.outputs == parts.config().outputs
        model = pio.from_pretrained({str(saved)!r}).eval()
        assert type(model).__name__ == "LidarModel"
        expected = torch.load({str(tmp_path / "y.pt")!r})
        assert torch.equal(model({{"scan": torch.ones(2, 5, 4)}})["y"], expected)
        from perceiver_io.running.find_task import find_task
        task = find_task({str(saved)!r})
        assert type(task).__name__ == "LidarTask" and task.name == "lidar-task"
        print("done")
    """
    assert python(script, tmp_path) == "done"


def test_only_what_may_be_the_class_is_imported(tmp_path: Path) -> None:
    install_lidar(tmp_path)
    install(
        tmp_path,
        "fake-other",
        {"fake_other": "raise RuntimeError('imported')"},
        "[perceiver_io.adapters]\nother = fake_other:Adapter\n",
    )
    script = """
        import sys
        import perceiver_io as pio
        from perceiver_io.registry import ADAPTERS
        import fake_lidar.parts as parts
        assert ADAPTERS.name_of(parts.LidarAdapter.Config()) == "lidar"
        class Unknown(pio.ComponentConfig):
            pass
        Unknown.__module__ = "fake_lidar.somewhere"
        try:
            ADAPTERS.name_of(Unknown())
        except ValueError as error:
            assert "No registered adapter has the configuration Unknown" in str(error), error
            assert "'lidar-broken' cannot be imported: 'fake-lidar' announces it" in str(error), error
            assert "disk" in str(error), error
        assert "fake_other" not in sys.modules
        print("done")
    """
    assert python(script, tmp_path) == "done"


def test_broken_plugins_take_nothing_with_them(tmp_path: Path) -> None:
    install_lidar(tmp_path)
    for cause, source in BROKEN.items():
        install_broken(tmp_path, source, groups=("adapters", "decoders", "tasks"), name=cause)
    script = f"""
        import perceiver_io as pio
        from perceiver_io.registry import ADAPTERS, DECODERS, TASKS
        from perceiver_io.running.find_task import get_task, task_of_class
        causes = {list(BROKEN)}
        for registry in (ADAPTERS, DECODERS, TASKS):
            assert set(causes) < set(registry.names())
        assert ADAPTERS.get("lidar").__name__ == "LidarAdapter"
        import fake_lidar.parts as parts
        assert parts.config().to_dict()["outputs"]["y"]["type"] == "mean"
        assert task_of_class("LidarModel").name == "lidar-task"
        assert task_of_class("NoSuchModel") is None
        for cause in causes:
            for ask in (ADAPTERS.get, DECODERS.get, TASKS.get, get_task):
                try:
                    ask(cause)
                except ValueError as error:
                    print(str(error))
    """
    lines = python(script, tmp_path).splitlines()
    assert len(lines) == 4 * len(BROKEN)
    for index, line in enumerate(lines):
        cause = list(BROKEN)[index // 4]
        assert f"The plug-in {cause!r} cannot be imported: 'fake-broken-" in line
        assert ":Nothing' in the group 'perceiver_io." in line
        assert (cause if cause != "ImportError" else "ModuleNotFoundError") in line.partition(
            " in the group "
        )[2]


@pytest.mark.parametrize("cause", ["SyntaxError", "SystemExit"])
def test_broken_models_and_layouts_are_warnings(cause: str, tmp_path: Path) -> None:
    install_broken(tmp_path, BROKEN[cause], groups=("models", "published_layouts"))
    script = """
        import warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import perceiver_io as pio
            pio.published_config("language-perceiver")
        found = [str(one.message) for one in caught if "plug-in 'broken' cannot be imported" in str(one.message)]
        print(len(found))
        print(*found)
    """
    output = python(script, tmp_path, warnings="ignore")
    assert output.startswith("2\n")
    assert "perceiver_io.models" in output and "perceiver_io.published_layouts" in output
    assert cause in output and "fake-broken-" in output


def test_a_model_class_of_a_broken_plugin_is_explained(tmp_path: Path) -> None:
    install_lidar(tmp_path)
    install_broken(tmp_path, "raise RuntimeError('no device')", groups=("models",))
    saved = tmp_path / "model"
    script = f"""
        import json, pathlib
        import perceiver_io as pio
        import fake_lidar.parts as parts
        parts.LidarModel(parts.config()).save_pretrained({str(saved)!r})
        path = pathlib.Path({str(saved)!r}, "config.json")
        path.write_text(path.read_text().replace("LidarModel", "GoneModel"))
        try:
            pio.from_pretrained({str(saved)!r})
        except ValueError as error:
            print(error)
    """
    output = python(script, tmp_path, warnings="ignore")
    assert "saved by the class 'GoneModel', which is not known here" in output
    assert "'broken' cannot be imported: 'fake-broken-" in output and "no device" in output


def test_what_is_announced_must_be_a_class_of_its_kind(tmp_path: Path) -> None:
    install(
        tmp_path,
        "fake-odd",
        {"fake_odd": "class Plain:\n    pass\n"},
        "[perceiver_io.adapters]\nmodule = fake_odd\nplain = fake_odd:Plain\n",
    )
    script = """
        from perceiver_io.registry import ADAPTERS
        for name in ("module", "plain"):
            try:
                ADAPTERS.get(name)
            except ValueError as error:
                print(error)
    """
    first, second = python(script, tmp_path).splitlines()
    assert (
        "The adapter 'module' must be a class, but 'fake_odd', which is announced for it, is a module"
        in first
    )
    assert "The adapter 'plain' needs a Config of its own, but Plain does not define one" in second


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on this process's own path; what is imported from it is forgotten afterwards."""
    for registry in (ADAPTERS, DECODERS, PROCESSORS, TASKS):
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.startswith("fake_")]:
        del sys.modules[name]


SMELLS = """
    from dataclasses import dataclass
    from perceiver_io import ComponentConfig
    from perceiver_io.ragged import pad_ragged

    @dataclass(frozen=True, kw_only=True)
    class SmellProcessor(ComponentConfig):
        strength: int = 3

        def prepare(self, value):
            return value

        def collate(self, samples):
            return pad_ragged(samples)
"""


def test_saved_processors_and_recipes_say_what_brought_them(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Announced under another name than it is defined under, as packages do that gather their classes in __init__.py.
    modules = {
        "fake_smells.parts": SMELLS,
        "fake_smells.front": "from fake_smells.parts import SmellProcessor",
    }
    install(
        site, "fake-smells", modules, "[perceiver_io.processors]\nsmell = fake_smells.front:SmellProcessor\n"
    )
    install_lidar(site)
    from fake_smells.front import SmellProcessor  # type: ignore[import-not-found]

    smell = SmellProcessor()
    settings = PerceiverIOProcessor({"nose": smell}).to_dict()
    assert settings["inputs"]["nose"] == {"type": "smell", "provided_by": "fake-smells 1.0", "strength": 3}
    assert PerceiverIOProcessor.from_dict(settings).to_dict() == settings
    brought_by = TASKS.provider(TASKS.get("lidar-task"))
    assert brought_by == "fake-lidar 1.0"
    recipe = TrainingRecipe().to_yaml(task="lidar-task", provided_by=brought_by)
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert find_task(tmp_path).name == "lidar-task"

    monkeypatch.undo()  # uninstalled
    with pytest.raises(
        ValueError, match=r"no processor 'smell'.* version '1\.0' of the distribution 'fake-smells'"
    ):
        PerceiverIOProcessor.from_dict(settings)
    with pytest.raises(
        ValueError, match=r"no task 'lidar-task'.* version '1\.0' of the distribution 'fake-lidar'"
    ):
        find_task(tmp_path)


def test_what_is_the_toolkits_own_or_announced_by_nobody_says_nothing(site: Path) -> None:
    for registry in (ADAPTERS, DECODERS, TASKS):
        for name in registry.names():
            assert registry.provider(registry.get(name)) is None
    install_lidar(site)
    from fake_lidar.parts import LidarAdapter  # type: ignore[import-not-found]

    class Own(LidarAdapter):  # type: ignore[misc]
        pass

    assert ADAPTERS.provider(LidarAdapter) == "fake-lidar 1.0"
    assert ADAPTERS.provider(Own) is None
    assert DECODERS.provider(LidarAdapter) is None  # it is announced as an adapter


@pytest.mark.parametrize("name", ["type", "provided_by"])
def test_settings_may_not_be_called_what_files_say_besides(name: str) -> None:
    config = dataclasses.make_dataclass(
        "Config", [(name, str, "")], bases=(ComponentConfig,), frozen=True, kw_only=True
    )
    with pytest.raises(ValueError, match=f"Config has the field '{name}'"):
        ADAPTERS.extended({"odd": type("Odd", (), {"Config": config})})


def test_info_lists_what_is_installed_and_from_where(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install_lidar(site)
    install_broken(site, "raise RuntimeError('no \\n device')", groups=("adapters", "tasks"))
    again = "[perceiver_io.adapters]\nimage = fake_again:Image\n"
    install(site, "fake-again", {"fake_again": "class Image:\n    class Config:\n        pass\n"}, again)
    kinds = ("adapters", "decoders", "processors", "tasks")
    assert main(["info", "--json", *(f"--{kind}" for kind in kinds)]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == list(kinds)
    found = {kind: {(row["name"], row.get("distribution")): row for row in listed[kind]} for kind in kinds}
    lidar = {"name": "lidar", "class": "fake_lidar.parts.LidarAdapter"}
    assert found["adapters"]["lidar", "fake-lidar"] == {
        **lidar,
        "distribution": "fake-lidar",
        "version": "1.0",
    }
    assert found["decoders"]["mean", "fake-lidar"]["class"] == "fake_lidar.parts.MeanDecoder"
    assert found["tasks"]["lidar-task", "fake-lidar"]["class"] == "fake_lidar.task.LidarTask"
    ours = found["adapters"]["image", "perceiver-io-toolkit"]
    assert ours["class"] == "perceiver_io.adapters.image.ImageAdapter"
    assert ours["version"] == metadata.version("perceiver-io-toolkit")
    # What fails is shown with its cause, beside all others; and nothing takes a name that is taken.
    for kind, name, distribution, cause in (
        ("adapters", "lidar-broken", "fake-lidar", "OSError('disk')"),
        ("adapters", "broken", "fake-broken-2", "RuntimeError"),
        ("tasks", "broken", "fake-broken-2", "RuntimeError"),
        ("adapters", "image", "fake-again", "is taken by perceiver_io.adapters.image.ImageAdapter"),
    ):
        row = found[kind][name, distribution]
        assert cause in row["error"] and "class" not in row and "\n" not in row["error"]
    assert ADAPTERS.get("image").__module__ == "perceiver_io.adapters.image"

    assert main(["info", "--adapters"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading == "adapters" and len(lines) == len(listed["adapters"])
    cells = {tuple(line.split()[:3]): line for line in lines}
    assert cells["lidar", "fake-lidar", "1.0"].endswith("fake_lidar.parts.LidarAdapter")
    assert "cannot be used: The plug-in 'lidar-broken'" in cells["lidar-broken", "fake-lidar", "1.0"]


def test_info_lists_what_a_module_of_the_users_registers(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = site / "fake_script.py"
    script.write_text(
        textwrap.dedent(LIDAR).replace("class Lidar", '@pio.register_adapter("own")\nclass Lidar', 1)
    )
    assert main(["info", "--adapters", "--import", str(script)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["own", "no", "distribution", "fake_script.LidarAdapter"] in lines

    # Under a name that a package announces too, it comes first; neither is passed over.
    install(
        site,
        "fake-late",
        {"fake_late": "class Own:\n    pass\n"},
        "[perceiver_io.adapters]\nown = fake_late:Own\n",
    )
    by_origin = {row.get("distribution"): row for row in ADAPTERS.listing() if row["name"] == "own"}
    assert by_origin[None]["class"] == "fake_script.LidarAdapter"
    assert "is taken by fake_script.LidarAdapter" in by_origin["fake-late"]["error"]


def test_info_is_of_the_installation_or_of_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", "--tasks", str(tmp_path)]) == 2
    assert "--tasks lists what is installed, which is the same for every model" in capsys.readouterr().err

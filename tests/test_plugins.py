"""Installed packages: an entry point alone makes a class known, and a broken one takes nothing with it.

Each is a folder with modules and a `.dist-info`, as `pip` would leave it, put on the path of a fresh interpreter.
"""

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

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


def install_broken(folder: Path, source: str, *, groups: tuple[str, ...]) -> None:
    module = f"fake_broken_{len(list(folder.iterdir()))}"
    entry_points = "".join(f"[perceiver_io.{group}]\nbroken = {module}:Nothing\n" for group in groups)
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
    script = f"""
        import torch
        import perceiver_io as pio
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


@pytest.mark.parametrize("cause", BROKEN)
def test_a_broken_plugin_takes_nothing_with_it(cause: str, tmp_path: Path) -> None:
    install_lidar(tmp_path)
    install_broken(tmp_path, BROKEN[cause], groups=("adapters", "decoders", "tasks"))
    script = """
        import perceiver_io as pio
        from perceiver_io.registry import ADAPTERS, DECODERS, TASKS
        from perceiver_io.running.find_task import get_task, task_of_class
        for registry in (ADAPTERS, DECODERS, TASKS):
            assert "broken" in registry.names()
        assert ADAPTERS.get("lidar").__name__ == "LidarAdapter"
        import fake_lidar.parts as parts
        assert parts.config().to_dict()["outputs"]["y"]["type"] == "mean"
        assert task_of_class("LidarModel").name == "lidar-task"
        assert task_of_class("NoSuchModel") is None
        for ask in (ADAPTERS.get, DECODERS.get, TASKS.get, get_task):
            try:
                ask("broken")
            except ValueError as error:
                print(str(error))
    """
    lines = python(script, tmp_path).splitlines()
    assert len(lines) == 4
    for line in lines:
        assert "The plug-in 'broken' cannot be imported: 'fake-broken-" in line
        assert ":Nothing' in the group 'perceiver_io." in line
        assert (cause if cause != "ImportError" else "ModuleNotFoundError") in line


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

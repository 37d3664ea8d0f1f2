"""Optional dependencies: imported, or named with the extra that installs them."""

import sys
import types

import pytest

from perceiver_io.extras import require


def test_gives_the_module() -> None:
    import json.decoder

    assert require("json.decoder", extra="train") is json.decoder


@pytest.mark.parametrize("name", ["no_such_package", "no_such_package.transforms.v2"])
def test_a_missing_package_is_named_with_its_extra(name: str) -> None:
    with pytest.raises(
        ImportError, match=r'no_such_package is not installed.*"perceiver-io-toolkit\[train\]"'
    ):
        require(name, extra="train")


def test_what_a_package_itself_lacks_is_not_blamed_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "half_installed":
                raise ModuleNotFoundError("No module named 'something_else'", name="something_else")

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match="something_else"):
        require("half_installed", extra="train")
    assert isinstance(require("sys", extra="train"), types.ModuleType)

"""Folders in the layouts of FlyingChairs, Sintel and KITTI, how they are split, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_io.data import Splits
from perceiver_io.tasks.optical_flow import write_flo, write_flow_png
from perceiver_io.tasks.optical_flow.flow_folders import FlowRows, find_pairs
from perceiver_io.tasks.optical_flow.recipe import OpticalFlowRecipe
from perceiver_io.tasks.optical_flow.task import OpticalFlowTask


def frame(path: Path, seed: int, size: tuple[int, int] = (10, 14)) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def flow_of(seed: int, size: tuple[int, int] = (10, 14)) -> torch.Tensor:
    return torch.randn(2, *size, generator=torch.Generator().manual_seed(seed)) * 3


def chairs(folder: Path, count: int = 6) -> Path:
    for index in range(1, count + 1):
        frame(folder / "data" / f"{index:05d}_img1.ppm", 2 * index)
        frame(folder / "data" / f"{index:05d}_img2.ppm", 2 * index + 1)
        write_flo(folder / "data" / f"{index:05d}_flow.flo", flow_of(index))
    return folder


def sintel(folder: Path, scenes: int = 4) -> Path:
    for scene in range(scenes):
        for number in range(1, 4):
            for seed, rendering in enumerate(("clean", "final")):
                name = f"training/{rendering}/alley_{scene}/frame_{number:04d}.png"
                frame(folder / name, 100 * scene + 10 * number + seed)
            if number == 3:
                continue
            for mask in ("occlusions", "invalid"):
                path = folder / f"training/{mask}/alley_{scene}/frame_{number:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                values = np.zeros((10, 14), dtype=np.uint8)
                values[: 2 if mask == "invalid" else 5] = 255
                Image.fromarray(values).save(path)
            path = folder / f"training/flow/alley_{scene}/frame_{number:04d}.flo"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_flo(path, flow_of(10 * scene + number))
    return folder


def kitti(folder: Path, count: int = 5) -> Path:
    for index in range(count):
        for part in (10, 11):
            frame(folder / f"training/image_2/{index:06d}_{part}.png", 2 * index + part)
        for name, share in (("flow_occ", 0.8), ("flow_noc", 0.4)):
            path = folder / f"training/{name}/{index:06d}_10.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            known = torch.rand(10, 14, generator=torch.Generator().manual_seed(index)) < share
            write_flow_png(path, flow_of(index), known)
    return folder


def read(folder: Path, **settings: Any) -> Splits:
    return OpticalFlowTask().data(OpticalFlowRecipe(dataset=str(folder), image_size=[8, 8], **settings))


def numbers(rows: Any) -> int:
    return len([rows[index] for index in range(len(rows))])


def test_flying_chairs(tmp_path: Path) -> None:
    chairs(tmp_path)
    rows = FlowRows(find_pairs(tmp_path).pairs)
    assert len(rows) == 6
    second_pair = rows[1]
    with Image.open(tmp_path / "data" / "00002_img2.ppm") as image:
        assert np.array_equal(second_pair["second"].permute(1, 2, 0).numpy(), np.asarray(image))
    torch.testing.assert_close(second_pair["flow"], flow_of(2))
    assert second_pair["valid"].all() and second_pair["valid"].shape == (10, 14)
    data = read(tmp_path)
    assert [numbers(data.named(split)) for split in ("train", "validation", "test")] == [3, 1, 2]


def test_flying_chairs_with_their_own_list(tmp_path: Path) -> None:
    chairs(tmp_path)
    (tmp_path / "FlyingChairs_train_val.txt").write_text("1\n2\n1\n1\n2\n1\n")
    data = read(tmp_path)
    assert [numbers(data.named(split)) for split in ("train", "validation", "test")] == [3, 2, 1]
    validated = torch.stack([row["flow"] for row in data.validation])
    torch.testing.assert_close(validated, torch.stack([flow_of(2), flow_of(5)]))
    (tmp_path / "FlyingChairs_train_val.txt").write_text("1 2 3 1 2 1")
    with pytest.raises(ValueError, match=r"a 1 \(train\) or a 2 \(validation\) for each of the 6 pairs"):
        read(tmp_path)


def test_sintel(tmp_path: Path) -> None:
    sintel(tmp_path)
    found = find_pairs(tmp_path)
    assert len(found.pairs) == 4 * 2 * 2 and len(set(found.groups or ())) == 4
    one = found.pairs[0]
    assert one.first.name == "frame_0001.png" and one.second.name == "frame_0002.png"
    row = FlowRows(found.pairs)[0]
    assert row["valid"].sum(1).tolist() == [0] * 2 + [14] * 8  # what is invalid
    hidden = FlowRows(find_pairs(tmp_path, occluded=False).pairs)[0]
    assert hidden["valid"].sum(1).tolist() == [0] * 5 + [14] * 5
    final = find_pairs(tmp_path, rendering="final").pairs
    assert len(final) == 8 and {pair.first.parent.parent.name for pair in final} == {"final"}


def test_a_scene_lies_in_one_set(tmp_path: Path) -> None:
    sintel(tmp_path, scenes=6)
    data = read(tmp_path)
    flows = {
        split: {tuple(row["flow"].flatten().tolist()) for row in data.named(split)}
        for split in ("train", "validation", "test")
    }
    assert sum(len(one) for one in flows.values()) == 12  # both renderings of a flow in the same set, too
    of_scenes = [
        {tuple(flow_of(10 * scene + number).flatten().tolist()) for number in (1, 2)} for scene in range(6)
    ]
    assert all(any(one <= flows[split] for split in flows) for one in of_scenes)


def test_kitti(tmp_path: Path) -> None:
    kitti(tmp_path)
    row = FlowRows(find_pairs(tmp_path).pairs)[3]
    known = torch.rand(10, 14, generator=torch.Generator().manual_seed(3))
    assert torch.equal(row["valid"], known < 0.8)
    assert ((row["flow"] - flow_of(3)).abs()[:, row["valid"]] <= 1 / 128).all()
    assert torch.equal(FlowRows(find_pairs(tmp_path, occluded=False).pairs)[3]["valid"], known < 0.4)


def test_grey_frames(tmp_path: Path) -> None:
    chairs(tmp_path)
    row = read(tmp_path, image_channels=1).train[0]
    assert row["first"].shape == (1, 10, 14)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"none of the layouts that are known\. FlyingChairs: .* Sintel: .* KITTI"
    ):
        read(tmp_path)
    with pytest.raises(
        ValueError, match=r"no dataset 'nowhere'\. Choose the embedded one \(warped-photographs\)"
    ):
        read(Path("nowhere"))
    with pytest.raises(ValueError, match="There is no dataset None"):
        OpticalFlowTask().data(OpticalFlowRecipe())


def test_a_missing_partner_is_refused(tmp_path: Path) -> None:
    chairs(tmp_path)
    (tmp_path / "data" / "00002_img2.ppm").unlink()
    (tmp_path / "data" / "00005_flow.flo").unlink()
    with pytest.raises(ValueError, match=r"missing .*00002_img2\.ppm, .*00005_flow\.flo"):
        read(tmp_path)


def test_bad_pairs_are_refused_or_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chairs(tmp_path)
    frame(tmp_path / "data" / "00001_img2.ppm", 0, size=(10, 12))
    write_flo(tmp_path / "data" / "00002_flow.flo", flow_of(2, size=(9, 14)))
    write_flo(tmp_path / "data" / "00003_flow.flo", flow_of(3) * 1000)
    (tmp_path / "data" / "00004_img1.ppm").write_bytes(b"P6 14 10 255\n12")
    with pytest.raises(ValueError, match="4 of 6 pairs are bad") as found:
        read(tmp_path)
    message = str(found.value)
    assert "00001_img1.ppm has 14x10" in message and "00001_img2.ppm has 12x10" in message
    assert "00002_flow.flo has 14x9" in message
    assert "00003_flow.flo has a flow of" in message and "in frames of 14x10: it is damaged" in message
    assert "00004_img1.ppm" in message and "skip_bad_files" in message
    chairs(tmp_path / "more")
    for file in (tmp_path / "data").iterdir():
        file.rename(tmp_path / "more" / "data" / file.name)
    data = read(tmp_path / "more", skip_bad_files=True, validation_fraction=0.0)
    assert len(data.train) + len(data.test) == 2
    assert "Skipped: 4 of 6 pairs" in caplog.text


def test_flow_that_is_not_a_number_is_not_known(tmp_path: Path) -> None:
    chairs(tmp_path)
    file = tmp_path / "data" / "00001_flow.flo"
    content = bytearray(file.read_bytes())
    content[12:20] = np.array([np.nan, 1e10], dtype="<f4").tobytes()
    file.write_bytes(content)
    row = FlowRows(find_pairs(tmp_path).pairs)[0]
    assert not row["valid"][0, 0] and row["valid"].sum() == 139
    assert row["flow"].isfinite().all()


def test_sintel_without_what_is_asked_for(tmp_path: Path) -> None:
    sintel(tmp_path)
    (tmp_path / "training" / "occlusions").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="no folder 'occlusions'"):
        find_pairs(tmp_path, occluded=False)
    (tmp_path / "training" / "final").rename(tmp_path / "final")
    with pytest.raises(ValueError, match="no folder 'final' of frames"):
        find_pairs(tmp_path)
    assert len(find_pairs(tmp_path, rendering="clean").pairs) == 8

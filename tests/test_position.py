"""Position encodings against NumPy written for this file and against torch's own interpolation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver_io.position import (
    FourierPositionEncoding,
    LearnedPositionEncoding,
    Spacing,
    axis_coordinates,
    flat_indices,
    fourier_features,
    grid_coordinates,
    interpolate,
)


def numpy_fourier(
    grid: tuple[int, ...], *, num_bands: int, max_resolution: tuple[int, ...], include_coordinates: bool
) -> np.ndarray:
    """Element by element, channel by channel, in float64: nothing that could share a mistake."""
    rows = []
    for index in np.ndindex(*grid):
        position = [
            -1 + 2 * i / (size - 1) if size > 1 else -1.0 for i, size in zip(index, grid, strict=True)
        ]
        row = list(position) if include_coordinates else []
        for wave in (np.sin, np.cos):
            for x, resolution in zip(position, max_resolution, strict=True):
                for band in range(num_bands):
                    share = band / (num_bands - 1) if num_bands > 1 else 0.0
                    row.append(wave(np.pi * x * (1 + share * (resolution / 2 - 1))))
        rows.append(row)
    return np.array(rows)


@settings(max_examples=25)
@given(
    grid=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    num_bands=st.integers(1, 5),
    resolution=st.integers(2, 40),
    include_coordinates=st.booleans(),
)
def test_fourier_features_are_those_of_numpy(
    grid: tuple[int, ...], num_bands: int, resolution: int, include_coordinates: bool
) -> None:
    max_resolution = tuple(resolution + axis for axis in range(len(grid)))
    encoding = FourierPositionEncoding(
        num_bands=num_bands, max_resolution=max_resolution, include_coordinates=include_coordinates
    )
    ours = encoding(grid, like=torch.zeros((), dtype=torch.float64))
    expected = numpy_fourier(
        grid, num_bands=num_bands, max_resolution=max_resolution, include_coordinates=include_coordinates
    )
    assert ours.shape == (np.prod(grid), encoding.num_channels)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)


def test_grid_is_row_major_with_both_ends() -> None:
    expected = [[-1, -1], [-1, 0], [-1, 1], [1, -1], [1, 0], [1, 1]]
    assert grid_coordinates((2, 3)).tolist() == expected


def test_fourier_features_of_any_points() -> None:
    points = torch.rand(2, 3, 4, 2) * 2 - 1
    features = fourier_features(points, num_bands=5, max_resolution=(8, 6))
    assert features.shape == (2, 3, 4, 2 * (2 * 5 + 1))
    alone = fourier_features(points[1, 2, 3], num_bands=5, max_resolution=(8, 6))
    torch.testing.assert_close(features[1, 2, 3], alone)


def test_half_precision_is_rounded_only_at_the_end() -> None:
    encoding = FourierPositionEncoding(num_bands=64, max_resolution=(224,))
    exact = encoding((224,), like=torch.zeros((), dtype=torch.float64))
    half = encoding((224,), like=torch.zeros((), dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (half.double() - exact).abs().max() < 2**-8


def test_no_bands_are_refused() -> None:
    with pytest.raises(ValueError, match="num_bands must be at least 1, got 0"):
        FourierPositionEncoding(num_bands=0, max_resolution=(4,))


@pytest.mark.parametrize(
    ("grid", "other", "mode"),
    [((5,), (8,), "linear"), ((4, 6), (7, 3), "bicubic"), ((2, 3, 4), (3, 5, 2), "trilinear")],
)
def test_learned_positions_are_the_table_or_interpolated(
    grid: tuple[int, ...], other: tuple[int, ...], mode: str
) -> None:
    encoding = LearnedPositionEncoding(grid=grid, num_channels=3)
    table = encoding.table.weight.detach()
    like = torch.zeros((), dtype=torch.float32)
    assert torch.equal(encoding(grid, like=like), table)
    as_image = table.T.reshape(1, 3, *grid)
    expected = torch.nn.functional.interpolate(as_image, size=other, mode=mode, align_corners=False)
    torch.testing.assert_close(encoding(other, like=like), expected.reshape(3, -1).T)


def test_learned_positions_of_too_many_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 3 axes"):
        LearnedPositionEncoding(grid=(2, 2, 2, 2), num_channels=3)


def test_steps_leave_out_the_last_end() -> None:
    rows, columns = axis_coordinates((4, 5), spacing="steps", dtype=torch.float64)
    assert rows.tolist() == [-1.0, -0.5, 0.0, 0.5]
    np.testing.assert_allclose(columns.numpy(), [-1 + 2 * i / 5 for i in range(5)], atol=1e-15)
    rows, columns = axis_coordinates((1, 3), spacing="ends")
    assert rows.tolist() == [-1.0]
    assert columns.tolist() == [-1.0, 0.0, 1.0]


@settings(max_examples=20)
@given(
    grid=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    include_coordinates=st.booleans(),
    spacing=st.sampled_from(["ends", "steps"]),
)
def test_fourier_features_of_some_elements_are_those_of_their_coordinates(
    grid: tuple[int, ...], include_coordinates: bool, spacing: Spacing
) -> None:
    encoding = FourierPositionEncoding(
        num_bands=3, max_resolution=(9, 7, 5)[: len(grid)], include_coordinates=include_coordinates
    )
    like = torch.zeros((), dtype=torch.float64)
    indices = torch.stack([torch.randint(size, (8,)) for size in grid], dim=1)
    ours = encoding.at_indices(grid, indices, spacing=spacing, like=like)
    last = [max(size - 1, 1) if spacing == "ends" else size for size in grid]
    coordinates = -1 + 2 * indices.double() / torch.tensor(last)
    torch.testing.assert_close(ours, encoding.at_coordinates(coordinates, like=like))
    if spacing == "ends":
        flat = np.ravel_multi_index(tuple(indices.numpy().T), grid)
        torch.testing.assert_close(ours, encoding(grid, like=like)[flat])


def test_fourier_features_of_other_axes_are_refused() -> None:
    encoding = FourierPositionEncoding(num_bands=2, max_resolution=(4, 4))
    with pytest.raises(ValueError, match=r"are of 2 axes, got the grid \(4,\)"):
        encoding((4,), like=torch.zeros(()))
    with pytest.raises(ValueError, match=r"are of 2 axes, got the grid \(4, 4, 4\)"):
        encoding.at_indices((4, 4, 4), torch.zeros(1, 3, dtype=torch.int64), like=torch.zeros(()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_positions_take_the_type_of_another_tensor_at_points_too(dtype: torch.dtype) -> None:
    like = torch.zeros((), dtype=dtype)
    indices, coordinates = torch.tensor([[1, 2]]), torch.tensor([[0.0, 1.0]])
    fourier = FourierPositionEncoding(num_bands=64, max_resolution=(224, 224))
    learned = LearnedPositionEncoding(grid=(3, 3), num_channels=2)
    for encoding in (fourier, learned):
        at_indices = encoding.at_indices((3, 3), indices, like=like)
        at_coordinates = encoding.at_coordinates(coordinates, like=like)
        assert at_indices.dtype == at_coordinates.dtype == dtype
        torch.testing.assert_close(at_indices, at_coordinates)


@pytest.mark.parametrize("grid", [(5,), (4, 6), (2, 3, 4)])
@pytest.mark.parametrize("spacing", ["ends", "steps"])
def test_learned_positions_of_some_elements_are_rows_of_the_table(
    grid: tuple[int, ...], spacing: Spacing
) -> None:
    encoding = LearnedPositionEncoding(grid=grid, num_channels=3)
    like = torch.zeros(())
    indices = torch.tensor(list(np.ndindex(*grid)))[torch.randperm(int(np.prod(grid)))]
    rows = encoding.table.weight[np.ravel_multi_index(tuple(indices.numpy().T), grid)]
    assert torch.equal(encoding.at_indices(grid, indices, like=like), rows)
    coordinates = torch.stack(
        [x[indices[:, axis]] for axis, x in enumerate(axis_coordinates(grid, spacing=spacing))], dim=1
    )
    torch.testing.assert_close(encoding.at_coordinates(coordinates, spacing=spacing, like=like), rows)


def test_learned_positions_of_some_elements_of_another_grid() -> None:
    encoding = LearnedPositionEncoding(grid=(2, 3), num_channels=4)
    like = torch.zeros(())
    whole = encoding((4, 5), like=like)
    indices = torch.tensor([[3, 1], [0, 4]])
    assert torch.equal(encoding.at_indices((4, 5), indices, like=like), whole[[16, 4]])


def test_truncated_positions_are_the_first_rows() -> None:
    encoding = LearnedPositionEncoding(grid=(6,), num_channels=2, resize="truncate")
    like = torch.zeros(())
    assert torch.equal(encoding((4,), like=like), encoding.table.weight[:4])
    assert torch.equal(encoding((6,), like=like), encoding.table.weight)
    with pytest.raises(ValueError, match=r"positions for 6 elements, got 7. Cut the input, or split it"):
        encoding((7,), like=like)


def test_truncated_positions_of_several_axes_are_the_first_of_each() -> None:
    encoding = LearnedPositionEncoding(grid=(3, 4, 2), num_channels=2, resize="truncate")
    like = torch.zeros(())
    table = encoding.table.weight.reshape(3, 4, 2, 2)
    assert torch.equal(encoding((2, 3, 2), like=like), table[:2, :3].reshape(12, 2))
    indices = torch.tensor([[1, 2, 0], [0, 1, 1]])
    assert torch.equal(encoding.at_indices((2, 3, 2), indices, like=like), table[[1, 0], [2, 1], [0, 1]])
    with pytest.raises(ValueError, match="positions for 3x4x2 elements, got 2x5x2"):
        encoding((2, 5, 2), like=like)


@given(grid=st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple))
def test_flat_indices_are_row_major(grid: tuple[int, ...]) -> None:
    indices = torch.tensor(list(np.ndindex(*grid)))
    assert flat_indices(indices, grid).tolist() == list(range(int(np.prod(grid))))


@pytest.mark.parametrize("grid", [(4, 5), (2, 3, 4), (1, 6)])
def test_interpolation_is_that_of_grid_sample(grid: tuple[int, ...]) -> None:
    """Which takes the last axis first, and has both ends with align_corners."""
    values = torch.randn(2, int(np.prod(grid)), 3).double()
    coordinates = torch.rand(20, len(grid)).double() * 2 - 1
    as_image = values.mT.reshape(2, 3, *grid)
    where = coordinates.flip(-1).expand(2, *[1] * (len(grid) - 1), 20, -1)
    expected = torch.nn.functional.grid_sample(as_image, where, align_corners=True, padding_mode="border")
    torch.testing.assert_close(interpolate(values, grid, coordinates), expected.flatten(2).mT)


def test_interpolation_over_steps() -> None:
    """By hand: two elements at -1 and 0, and the last as far as 1."""
    values = torch.tensor([[[1.0], [3.0]]])
    coordinates = torch.tensor([[-1.0], [-0.75], [-0.5], [0.0], [0.5], [1.0]])
    ours = interpolate(values, (2,), coordinates, spacing="steps")
    torch.testing.assert_close(ours.flatten(), torch.tensor([1.0, 1.5, 2.0, 3.0, 3.0, 3.0]))


def test_interpolation_passes_gradients_to_values_and_coordinates() -> None:
    values = torch.randn(2, 12, 2).double().requires_grad_()
    coordinates = (torch.rand(5, 2).double() * 1.8 - 0.9).requires_grad_()
    torch.autograd.gradcheck(lambda v, c: interpolate(v, (3, 4), c), (values, coordinates))


@given(nominal=st.integers(1, 300), size=st.integers(1, 400))
def test_nominal_positions_are_those_of_the_nominal_grid_and_go_on(nominal: int, size: int) -> None:
    encoding = FourierPositionEncoding(num_bands=1, max_resolution=(2,), nominal_grid=(nominal,))
    ours = encoding((size,), like=torch.zeros(()))[:, 0]
    expected = [-1 + 2 * i / max(nominal - 1, 1) for i in range(size)]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5, rtol=1e-6)


def test_nominal_positions_of_an_element_are_the_same_in_any_grid() -> None:
    encoding = FourierPositionEncoding(num_bands=5, max_resolution=(9, 7), nominal_grid=(4, 3))
    like = torch.zeros(())
    whole = encoding((8, 9), like=like).unflatten(0, (8, 9))
    for grid in [(4, 3), (1, 1), (2, 5), (8, 2)]:
        part = encoding(grid, like=like)
        torch.testing.assert_close(part, whole[: grid[0], : grid[1]].flatten(0, 1), atol=1e-6, rtol=0)
    indices = torch.tensor([[7, 8], [0, 2]])
    torch.testing.assert_close(encoding.at_indices((8, 9), indices, like=like), whole[[7, 0], [8, 2]])
    plain = FourierPositionEncoding(num_bands=5, max_resolution=(9, 7))
    torch.testing.assert_close(encoding((4, 3), like=like), plain((4, 3), like=like), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_lies_between_elements_is_found_in_float32(dtype: torch.dtype) -> None:
    """In half precision the places themselves were rounded: by several elements of a large grid."""
    values = torch.arange(1000, dtype=torch.float32)[None, :, None]
    coordinates = torch.linspace(-1, 1, 77).to(dtype)[:, None]
    expected = (coordinates.double() + 1) / 2 * 999
    found = interpolate(values, (1000,), coordinates)
    torch.testing.assert_close(found[0], expected.float(), rtol=1e-5, atol=1e-3)

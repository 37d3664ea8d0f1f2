"""The image adapter: content, positions, sizes, masks, and what it refuses."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PerceiverConfig
from transformers.models.perceiver.modeling_perceiver import PerceiverImagePreprocessor

from perceiver_io import ByteArray
from perceiver_io.adapters.conv_stem import ConvStem
from perceiver_io.adapters.downsampling import DownsamplingConvolution
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.position import fourier_features, grid_coordinates


def adapter(**fields: Any) -> ImageAdapter:
    return ImageAdapter(ImageAdapter.Config(**{"size": (4, 6), "num_bands": 3} | fields)).eval()


def content(byte_array: ByteArray) -> torch.Tensor:
    return byte_array.values[..., : byte_array.num_content_channels]


def position(byte_array: ByteArray) -> torch.Tensor:
    return byte_array.values[..., byte_array.num_content_channels :]


@pytest.mark.parametrize("image_channels", [1, 3, 5])
def test_pixels_in_row_major_order(image_channels: int) -> None:
    image = torch.randn(2, image_channels, 4, 6)
    byte_array = adapter(image_channels=image_channels)(image)
    assert byte_array.grid == (4, 6)
    assert byte_array.num_content_channels == image_channels
    assert byte_array.mask is None
    for row in range(4):
        for column in range(6):
            assert torch.equal(content(byte_array)[:, row * 6 + column], image[:, :, row, column])


@settings(max_examples=20)
@given(patch=st.integers(1, 4), rows=st.integers(1, 4), columns=st.integers(1, 4), channels=st.integers(1, 3))
def test_patches_are_rows_columns_then_channels(patch: int, rows: int, columns: int, channels: int) -> None:
    size = (rows * patch, columns * patch)
    image = torch.arange(channels * size[0] * size[1], dtype=torch.float32).reshape(1, channels, *size)
    byte_array = adapter(size=size, image_channels=channels, features="patches", patch_size=patch)(image)
    assert byte_array.grid == (rows, columns)
    assert byte_array.num_content_channels == channels * patch**2
    for row in range(rows):
        for column in range(columns):
            pixels = image[0, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            expected = torch.stack([pixels[:, p, q] for p in range(patch) for q in range(patch)]).flatten()
            assert torch.equal(content(byte_array)[0, row * columns + column], expected)


def test_conv1x1_is_a_linear_layer_by_pixel() -> None:
    module = adapter(features="conv1x1", feature_channels=7)
    image = torch.randn(2, 3, 4, 6)
    byte_array = module(image)
    weight, bias = module.features.weight[:, :, 0, 0], module.features.bias
    expected = image.permute(0, 2, 3, 1).reshape(2, 24, 3) @ weight.T + bias
    torch.testing.assert_close(content(byte_array), expected)


@pytest.mark.parametrize("features", ["conv1x1", "conv"])
def test_default_feature_channels_are_as_published(features: Any) -> None:
    assert adapter(features=features).num_content_channels == {"conv1x1": 256, "conv": 64}[features]


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 6), (1, 1), (33, 30)])
def test_downsampling_pads_as_same(size: tuple[int, int]) -> None:
    """Each output is the maximum over a window of convolutions that are centred as TensorFlow centres them."""
    module = DownsamplingConvolution(2, 3)
    with torch.no_grad():
        for tensor in (module.norm.weight, module.norm.bias, module.norm.running_mean):
            tensor.copy_(torch.randn(3))
    module.eval()
    image = torch.randn(1, 2, *size)
    halved = [-(-side // 2) for side in size]
    quartered = [-(-side // 2) for side in halved]

    def offset(side: int, kernel: int) -> int:
        return max((-(-side // 2) - 1) * 2 + kernel - side, 0) // 2

    canvas = torch.zeros(1, 2, size[0] + 20, size[1] + 20)
    canvas[:, :, 10 : 10 + size[0], 10 : 10 + size[1]] = image
    convolved = torch.zeros(3, *halved)
    for row in range(halved[0]):
        for column in range(halved[1]):
            top = 10 + 2 * row - offset(size[0], 7)
            left = 10 + 2 * column - offset(size[1], 7)
            window = canvas[0, :, top : top + 7, left : left + 7]
            convolved[:, row, column] = (module.convolution.weight * window).sum((1, 2, 3))
    normed = (convolved - module.norm.running_mean[:, None, None]) / (1 + 1e-5) ** 0.5
    activated = (normed * module.norm.weight[:, None, None] + module.norm.bias[:, None, None]).clamp(min=0)
    expected = torch.zeros(3, *quartered)
    for row in range(quartered[0]):
        for column in range(quartered[1]):
            top = 2 * row - offset(halved[0], 3)
            left = 2 * column - offset(halved[1], 3)
            window = activated[:, max(top, 0) : top + 3, max(left, 0) : left + 3]
            expected[:, row, column] = window.amax((1, 2))
    with torch.no_grad():
        torch.testing.assert_close(module(image)[0], expected, atol=1e-5, rtol=1e-5)
    assert ImageAdapter.Config(size=size, features="conv").grid(size) == tuple(quartered)


@pytest.mark.parametrize("size", [(5, 6), (7, 13), (9, 10), (16, 17), (31, 33), (28, 12)])
def test_symmetric_padding_is_that_of_transformers(size: tuple[int, int]) -> None:
    reference = PerceiverImagePreprocessor(
        PerceiverConfig(),
        prep_type="conv",
        spatial_downsample=4,
        out_channels=5,
        fourier_position_encoding_kwargs={"num_bands": 3, "max_resolution": (7, 7), "concat_pos": True},
    ).eval()
    with torch.no_grad():
        for tensor in reference.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
        reference.convnet.conv.weight.sub_(1)
    fields = {"features": "conv", "feature_channels": 5, "max_resolution": (7, 7)}
    module = adapter(size=size, conv_padding="symmetric", **fields)
    renamed = {"conv": "convolution", "batchnorm": "norm"}
    for theirs, ours in renamed.items():
        getattr(module.features, ours).load_state_dict(getattr(reference.convnet, theirs).state_dict())
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        byte_array, (expected, _, _) = module(image), reference(image)
    torch.testing.assert_close(byte_array.values, expected)
    same = adapter(size=size, **fields)
    assert math.prod(same(image).grid) > math.prod(byte_array.grid)


def test_symmetric_padding_of_the_published_size() -> None:
    config = ImageAdapter.Config(size=(224, 224), features="conv", conv_padding="symmetric")
    assert config.grid((224, 224)) == (55, 55)


@pytest.mark.parametrize("size", [(4, 6), (3, 9)])
def test_fourier_positions_follow_the_grid_at_fixed_frequencies(size: tuple[int, int]) -> None:
    byte_array = adapter()(torch.randn(2, 3, *size))
    assert byte_array.grid == size
    expected = fourier_features(grid_coordinates(size), num_bands=3, max_resolution=(4, 6))
    torch.testing.assert_close(position(byte_array), expected.expand(2, -1, -1))


def test_max_resolution_is_the_nominal_grids_unless_given() -> None:
    patches = {"size": (8, 8), "features": "patches", "patch_size": 2}
    image = torch.randn(1, 3, 8, 8)
    given_grid = adapter(**patches, max_resolution=(4, 4))(image)
    assert torch.equal(adapter(**patches)(image).values, given_grid.values)
    given_other = adapter(**patches, max_resolution=(8, 8))(image)
    assert not torch.equal(position(given_other), position(given_grid))
    assert adapter(include_coordinates=False).num_channels == adapter().num_channels - 2


@pytest.mark.parametrize("features", ["pixels", "patches", "conv"])
def test_learned_positions_are_interpolated_to_other_sizes(features: Any) -> None:
    fields = {"features": features, "patch_size": 2 if features == "patches" else 1}
    module = adapter(size=(16, 12), position="learned", position_channels=5, **fields)
    nominal, other = module(torch.randn(1, 3, 16, 12)), module(torch.randn(1, 3, 20, 24))
    assert torch.equal(position(nominal)[0], module.position.table())
    table = module.position.table().T.reshape(1, 5, *nominal.grid)
    expected = torch.nn.functional.interpolate(table, size=other.grid, mode="bicubic", align_corners=False)
    torch.testing.assert_close(position(other), expected.flatten(2).transpose(1, 2))


def test_positions_are_projected_and_added() -> None:
    image = torch.randn(2, 3, 4, 6)
    projected = adapter(position_projection=5)
    torch.manual_seed(1)
    added = adapter(position_projection=3, combine="add")
    expected = added.position_projection(adapter()(image).values[..., 3:])
    torch.testing.assert_close(added(image).values, image.flatten(2).transpose(1, 2) + expected)
    assert (projected.num_channels, added.num_channels) == (8, 3)
    assert added(image).num_content_channels == 3


def test_no_positions() -> None:
    byte_array = adapter(position="none", position_projection=9)(torch.randn(2, 3, 4, 6))
    assert byte_array.values.shape == (2, 24, 3)


def test_an_element_is_real_if_any_of_its_pixels_is() -> None:
    mask = torch.zeros(1, 4, 6, dtype=torch.bool)
    mask[0, 1, 2] = mask[0, 3, 5] = True
    module = adapter(features="patches", patch_size=2)
    image = torch.randn(1, 3, 4, 6)
    byte_array = module(image, mask)
    assert byte_array.mask is not None
    assert byte_array.mask.tolist() == [[False, True, False, False, False, True]]
    half_real = content(byte_array)[0, 1].reshape(2, 2, 3)
    assert torch.equal(half_real[1, 0], image[0, :, 1, 2])
    assert not half_real[0].any() and not half_real[1, 1].any()


@pytest.mark.parametrize("size", [(9, 10), (32, 32)])
def test_mask_of_conv_features_has_their_grid(size: tuple[int, int]) -> None:
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[0, 0, 0] = True
    byte_array = adapter(features="conv", feature_channels=4)(torch.randn(1, 3, *size), mask)
    assert byte_array.mask is not None
    assert byte_array.mask[0].nonzero().tolist() == [[0]]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 4, 6), r"must be \(batch, 3, height, width\), got 3 axes: \(3, 4, 6\)"),
        (torch.zeros(1, 1, 3, 4, 6), "got 5 axes"),
        (
            torch.zeros(2, 4, 6, 3),
            r"must be \(batch, 3, height, width\), got 4 axes: \(2, 4, 6, 3\)\. Channels come first",
        ),
        (torch.zeros(2, 1, 4, 6), r"\(batch, 3, height, width\), got 4 axes: \(2, 1, 4, 6\)"),
        (
            torch.zeros(2, 3, 4, 6, dtype=torch.uint8),
            r"must be floating point, got torch.uint8\. Pixels are expected in \[0, 1\] or \[-1, 1\]",
        ),
        (torch.zeros(2, 3, 4, 6, dtype=torch.bool), "must be floating point, got torch.bool"),
        (torch.zeros(0, 3, 4, 6), r"must not be empty along any axis, got \(0, 3, 4, 6\)"),
        (torch.zeros(2, 3, 0, 6), "must not be empty along any axis"),
        (torch.full((1, 3, 4, 6), torch.nan), "72 values that are NaN or infinite"),
        (torch.full((1, 3, 4, 6), -torch.inf), "72 values that are NaN or infinite"),
    ],
)
def test_bad_images_are_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter()(x)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((2, 8), "2x8 pixels is smaller than a patch of 4x4"),
        ((8, 10), "8x10 pixels cannot be cut in patches of 4x4"),
    ],
)
def test_images_that_patches_do_not_fit_are_refused(size: tuple[int, int], message: str) -> None:
    module = adapter(size=(8, 8), features="patches", patch_size=4)
    with pytest.raises(ValueError, match=message):
        module(torch.zeros(1, 3, *size))
    with pytest.raises(ValueError, match=message):
        ImageAdapter.Config(size=size, features="patches", patch_size=4)


@pytest.mark.parametrize(
    "mask",
    [torch.ones(2, 4, 5).bool(), torch.ones(1, 4, 6).bool(), torch.ones(2, 24).bool(), torch.ones(2, 4, 6)],
)
def test_masks_that_do_not_fit_are_refused(mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be bool \(2, 4, 6\), got"):
        adapter()(torch.zeros(2, 3, 4, 6), mask)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_channels": 0}, "image_channels must be at least 1, got 0"),
        ({"patch_size": 2}, "patch_size 2 goes with features='patches', got features='pixels'"),
        ({"feature_channels": 8}, "feature_channels goes with features='conv1x1', 'conv' or 'conv_stem'"),
        (
            {"num_convolutions": 2},
            "num_convolutions 2 and num_residual_convolutions 0 go with features='conv_stem'",
        ),
        (
            {"num_residual_convolutions": 2},
            "num_residual_convolutions 2 go with features='conv_stem', got features=",
        ),
        (
            {"features": "conv_stem", "feature_channels": 8, "num_residual_convolutions": -1},
            "num_residual_convolutions must be at least 0, got -1",
        ),
        ({"features": "conv_stem", "num_convolutions": 0}, "num_convolutions must be at least 1, got 0"),
        (
            {"features": "conv_stem", "feature_channels": 6},
            r"feature_channels 6 cannot be halved 2 times, as 3 convolutions need it\. Choose a multiple of 4",
        ),
        ({"features": "conv", "feature_channels": 0}, "feature_channels must be at least 1, got 0"),
        ({"position_projection": 0}, "position_projection must be at least 1, got 0"),
        ({"max_resolution": (4, 0)}, r"max_resolution must be at least 1, got \(4, 0\)"),
        (
            {"conv_padding": "symmetric"},
            "conv_padding='symmetric' goes with features='conv', got features='pixels'",
        ),
        ({"conv_padding": "symmetric", "features": "conv"}, "4x6 pixels is smaller than 5x5"),
        ({"conv_padding": "valid"}, "conv_padding must be one of 'same', 'symmetric', got 'valid'"),
        ({"size": (0, 4)}, "0x4 pixels"),
        ({"size": (0, 4), "features": "conv"}, "0x4 pixels"),
        (
            {"features": "resnet"},
            "features must be one of 'pixels', 'patches', 'conv1x1', 'conv', 'conv_stem', got 'resnet'",
        ),
        ({"size": 4}, "size must be .*int.*, got 4"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter(**fields)


def test_adding_positions_of_another_width_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"14 channels cannot be added to features of 3\. Set position_projection=3"
    ):
        adapter(combine="add")


def test_what_a_convolution_makes_of_masked_pixels_is_not_pooled() -> None:
    module = DownsamplingConvolution(2, 3).eval()
    with torch.no_grad():
        module.norm.bias.fill_(1.0)  # what is zero before is not zero after
    alone = torch.randn(1, 2, 16, 16)
    larger, mask = torch.zeros(1, 2, 32, 24), torch.zeros(1, 32, 24, dtype=torch.bool)
    larger[..., :16, :16], mask[:, :16, :16] = alone, True
    torch.testing.assert_close(module(larger, mask)[..., :4, :4], module(alone))
    assert not torch.allclose(module(larger)[..., :4, :4], module(alone))
    symmetric = DownsamplingConvolution(2, 3, padding="symmetric").eval()  # as `transformers`
    assert torch.equal(symmetric(larger, mask), symmetric(larger))


def test_nominal_positions_stay_where_they_are() -> None:
    def adapter(**fields: Any) -> ImageAdapter:
        torch.manual_seed(0)
        settings = {"size": (4, 6), "num_bands": 3, "position_channels": 5, "position_extent": "nominal"}
        return ImageAdapter(ImageAdapter.Config(**settings | fields))

    image = torch.randn(1, 3, 6, 8)
    fourier = adapter()
    whole = fourier(image).values.unflatten(1, (6, 8))
    for height, width in [(4, 6), (2, 3), (6, 7)]:
        part = fourier(image[:, :, :height, :width]).values
        torch.testing.assert_close(part, whole[:, :height, :width].flatten(1, 2))
    learned = adapter(position="learned")
    table = learned(image[..., :4, :6]).values.unflatten(1, (4, 6))
    assert torch.equal(learned(image[..., :3, :2]).values, table[:, :3, :2].flatten(1, 2))
    with pytest.raises(ValueError, match="positions for 4x6 elements, got 6x8"):
        learned(image)
    with pytest.raises(ValueError, match="goes with conv_padding='same'"):
        adapter(features="conv", size=(16, 16), conv_padding="symmetric")


@pytest.mark.parametrize("size", [(16, 24), (9, 13)])
def test_a_conv_stem_is_its_layers_one_after_the_other(size: tuple[int, int]) -> None:
    """Against torch's own, with the first layer's widths a quarter of the last one's."""
    module = adapter(features="conv_stem", feature_channels=8, position="none")
    layers: list[torch.nn.Module] = []
    for before, after in ((3, 2), (2, 4), (4, 8)):
        layers += [torch.nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)]
        layers += [torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
    theirs = torch.nn.Sequential(*layers).train(module.training)
    stem = module.features
    assert isinstance(stem, ConvStem)
    with torch.no_grad():
        for index, (convolution, norm) in enumerate(zip(stem.convolutions, stem.norms, strict=True)):
            theirs[3 * index].weight.copy_(convolution.weight)  # type: ignore[arg-type]
            norm.bias.fill_(0.1 * index)  # type: ignore[union-attr]
            theirs[3 * index + 1].bias.fill_(0.1 * index)  # type: ignore[union-attr, operator]
    images = torch.randn(2, 3, *size)
    expected = theirs(images)
    byte_array = module(images)
    assert byte_array.grid == expected.shape[2:] == module.config.grid(size)
    torch.testing.assert_close(byte_array.values, expected.flatten(2).transpose(1, 2))


def test_residual_convolutions_follow_a_stem_and_halve_nothing() -> None:
    plain = adapter(features="conv_stem", feature_channels=8, num_convolutions=2, position="none")
    deeper = adapter(
        features="conv_stem",
        feature_channels=8,
        num_convolutions=2,
        num_residual_convolutions=2,
        position="none",
    )
    result = deeper.load_state_dict(plain.state_dict(), strict=False)
    assert {name.split(".")[1] for name in result.missing_keys} == {"residual_convolutions", "residual_norms"}
    images = torch.randn(2, 3, 16, 12)
    x = plain.train()(images).values.mT.unflatten(2, (4, 3))
    stem = deeper.features
    assert isinstance(stem, ConvStem)
    with torch.no_grad():
        for index, norm in enumerate(stem.residual_norms):
            norm.bias.fill_(0.1 * index)  # type: ignore[union-attr, operator]
    for convolution, norm in zip(stem.residual_convolutions, stem.residual_norms, strict=True):
        convolved = torch.nn.functional.conv2d(x, convolution.weight, padding=1)  # type: ignore[arg-type]
        normed = torch.nn.functional.batch_norm(
            convolved,
            None,
            None,
            norm.weight,
            norm.bias,
            training=True,  # type: ignore[arg-type]
        )
        x = x + normed.relu()
    byte_array = deeper.train()(images)
    assert byte_array.grid == (4, 3)
    torch.testing.assert_close(byte_array.values, x.flatten(2).mT)


def test_a_conv_stem_has_128_channels_and_elements_of_8_pixels() -> None:
    byte_array = adapter(size=(64, 64), features="conv_stem", position="none")(torch.randn(2, 3, 64, 64))
    assert byte_array.values.shape == (2, 64, 128) and byte_array.grid == (8, 8)

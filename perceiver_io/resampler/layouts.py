"""How published resamplers name their tensors, and what their code fixes besides: read into ours, and written back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["LAYOUTS", "ReadTensors", "ResamplerLayout", "read_layout", "write_layout"]

Names = Mapping[str, str | tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class ResamplerLayout:
    """One way of naming the tensors of a resampler.

    Attributes:
        names: Ours by theirs, of the modules that hold them; "{}" is the number of a layer. Two of ours are one of
            theirs, the first rows and the rest.
        bare: Which of theirs are parameters and no modules; and where these have an axis of size one that ours lack.
        mark: A name that only this layout has, and always: what it is told by.
        always: Ours that every resampler of it has, beside those that every resampler has.
        options: What its code fixes of a `PerceiverResampler`, beside the defaults.
        head_channels: Of each head, unless its configuration says other.
    """

    names: Names
    bare: Mapping[str, int | None]
    mark: str
    always: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    head_channels: int = 64

    def theirs(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Returns which of ours, in order, become which of theirs.

        Raises:
            ValueError: There is no name for some; all are listed.
        """
        places = {
            ours: (stem, place)
            for stem, both in self.names.items()
            for place, ours in enumerate((both,) if isinstance(both, str) else both)
        }
        found: dict[str, dict[int, str]] = {}
        unknown = []
        for name in names:
            number = re.findall(r"\.(\d+)\.", name)[:1]
            module, suffix = re.sub(r"\.\d+\.", ".{}.", name, count=1).rsplit(".", 1)
            if module not in places:
                unknown.append(name)
                continue
            stem, place = places[module]
            theirs = stem if stem in self.bare else f"{stem}.{suffix}"
            found.setdefault(theirs.format(*number), {})[place] = name
        if unknown:
            raise ValueError(f"This layout has no name for {_listed(unknown)}.")
        return {theirs: [parts[place] for place in sorted(parts)] for theirs, parts in found.items()}

    def ours(self, theirs: str) -> tuple[str, ...] | None:
        """Returns which of ours one of theirs is, or None."""
        for stem, both in self.names.items():
            pattern = re.escape(stem).replace(re.escape("{}"), r"(\d+)")
            pattern += "" if stem in self.bare else r"\.(weight|bias)"
            if match := re.fullmatch(pattern, theirs):
                *numbers, suffix = (*match.groups(), "weight") if stem in self.bare else match.groups()
                parts = (both,) if isinstance(both, str) else both
                return tuple(f"{part.format(*numbers)}.{suffix}" for part in parts)
        return None


_FLAMINGO_LAYERS: Names = {
    "layers.{}.0.to_q": "layers.{}.attention.query",
    "layers.{}.0.to_kv": ("layers.{}.attention.key", "layers.{}.attention.value"),
    "layers.{}.0.to_out": "layers.{}.attention.output",
    "layers.{}.1.0": "layers.{}.feed_forward_norm",
    "layers.{}.1.1": "layers.{}.feed_forward.hidden",
    "layers.{}.1.3": "layers.{}.feed_forward.output",
}
_FLAMINGO: Names = {
    "latents": "latents",
    "layers.{}.0.norm_media": "layers.{}.input_norm",
    "layers.{}.0.norm_latents": "layers.{}.latent_norm",
    **_FLAMINGO_LAYERS,
    "norm": "norm",
}
_IDEFICS2: Names = {
    "latents": "latents",
    "layers.{}.input_context_norm": "layers.{}.input_norm",
    "layers.{}.input_latents_norm": "layers.{}.latent_norm",
    "layers.{}.self_attn.q_proj": "layers.{}.attention.query",
    "layers.{}.self_attn.k_proj": "layers.{}.attention.key",
    "layers.{}.self_attn.v_proj": "layers.{}.attention.value",
    "layers.{}.self_attn.o_proj": "layers.{}.attention.output",
    "layers.{}.post_attention_layernorm": "layers.{}.feed_forward_norm",
    "layers.{}.mlp.gate_proj": "layers.{}.feed_forward.gate",
    "layers.{}.mlp.up_proj": "layers.{}.feed_forward.hidden",
    "layers.{}.mlp.down_proj": "layers.{}.feed_forward.output",
    "norm": "norm",
}
_IDEFICS2_OPTIONS = {"norm": "rms", "feed_forward": "swiglu"}
# What tensors do not say of a resampler, and names only in part.
_DEFAULT_KINDS = {
    "latents_among_keys": True,
    "feed_forward": "gelu",
    "feed_forward_bias": False,
    "norm": "layer",
    "norm_position": "before",
}

LAYOUTS = {
    "flamingo-pytorch": ResamplerLayout(
        names={**_FLAMINGO, "media_pos_emb": "media"},
        bare={"latents": None, "media_pos_emb": 1},
        mark="media_pos_emb",
        always=("media.weight",),
    ),
    "open-flamingo": ResamplerLayout(
        names={**_FLAMINGO, "frame_embs": "frames", "media_time_embs": "media"},
        bare={"latents": None, "frame_embs": None, "media_time_embs": 1},
        mark="layers.0.0.norm_media.weight",
    ),
    "ip-adapter": ResamplerLayout(
        names={
            "latents": "latents",
            "pos_emb": "positions",
            "proj_in": "input_projection",
            "to_latents_from_mean_pooled_seq.0": "pooled_latents.norm",
            "to_latents_from_mean_pooled_seq.1": "pooled_latents.output",
            "layers.{}.0.norm1": "layers.{}.input_norm",
            "layers.{}.0.norm2": "layers.{}.latent_norm",
            **_FLAMINGO_LAYERS,
            "proj_out": "output_projection",
            "norm_out": "norm",
        },
        bare={"latents": 0},
        mark="layers.0.0.norm1.weight",
        always=("input_projection.weight", "output_projection.weight"),
    ),
    "idefics": ResamplerLayout(
        names={
            "latents": "latents",
            "blocks.{}.0.context_layer_norm": "layers.{}.input_norm",
            "blocks.{}.0.latents_layer_norm": "layers.{}.latent_norm",
            "blocks.{}.0.q_layer_norm": "layers.{}.attention.query_norm",
            "blocks.{}.0.k_layer_norm": "layers.{}.attention.key_norm",
            "blocks.{}.0.q_proj": "layers.{}.attention.query",
            "blocks.{}.0.k_proj": "layers.{}.attention.key",
            "blocks.{}.0.v_proj": "layers.{}.attention.value",
            "blocks.{}.0.output_proj": "layers.{}.attention.output",
            "blocks.{}.1.ln": "layers.{}.feed_forward_norm",
            "blocks.{}.1.fc": "layers.{}.feed_forward.hidden",
            "blocks.{}.1.c_proj": "layers.{}.feed_forward.output",
            "layer_norm": "norm",
        },
        bare={"latents": None},
        mark="blocks.0.0.context_layer_norm.weight",
        options={"feed_forward": "relu"},
        head_channels=96,
    ),
    "idefics2": ResamplerLayout(
        names=_IDEFICS2,
        bare={"latents": None},
        mark="layers.0.self_attn.q_proj.weight",
        options=_IDEFICS2_OPTIONS,
        head_channels=96,
    ),
    "idefics2-connector": ResamplerLayout(
        names={
            "modality_projection.gate_proj": "input_projection.gate",
            "modality_projection.up_proj": "input_projection.hidden",
            "modality_projection.down_proj": "input_projection.output",
            **{f"perceiver_resampler.{theirs}": ours for theirs, ours in _IDEFICS2.items()},
        },
        bare={"perceiver_resampler.latents": None},
        mark="perceiver_resampler.layers.0.self_attn.q_proj.weight",
        options={**_IDEFICS2_OPTIONS, "input_projection": "swiglu"},
        head_channels=96,
    ),
    "xtts": ResamplerLayout(
        names={
            "latents": "latents",
            "proj_context": "input_projection",
            "layers.{}.0.to_q": "layers.{}.attention.query",
            "layers.{}.0.to_kv": ("layers.{}.attention.key", "layers.{}.attention.value"),
            "layers.{}.0.to_out": "layers.{}.attention.output",
            "layers.{}.1.0": ("layers.{}.feed_forward.hidden", "layers.{}.feed_forward.gate"),
            "layers.{}.1.2": "layers.{}.feed_forward.output",
            "norm.gamma": "norm",
        },
        bare={"latents": None, "norm.gamma": None},
        mark="norm.gamma",
        options={
            "feed_forward": "geglu",
            "feed_forward_bias": True,
            "norm": "rms",
            "norm_position": "none",
            "norm_eps": 1e-12,
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class ReadTensors:
    """The tensors of a published resampler under our names.

    Attributes:
        layout: Whose names they had.
        tensors: Copies, by our names and in our shapes.
        options: Arguments of the `PerceiverResampler` that they are of.
    """

    layout: ResamplerLayout
    tensors: Mapping[str, Tensor]
    options: Mapping[str, Any]

    def check_fit(self, expected: Mapping[str, Tensor]) -> None:
        """Checks that these are the tensors of a resampler, all and no others.

        Args:
            expected: Its own.

        Raises:
            ValueError: They are not; all that are missing, not expected or of a wrong shape are named as in the layout.
        """
        lines = []
        for theirs, parts in self.layout.theirs({**expected, **self.tensors}).items():
            for ours in parts:
                if ours not in self.tensors:
                    lines.append(f"missing tensor: {theirs}")
                elif ours not in expected:
                    lines.append(f"unexpected tensor: {theirs}")
                elif self.tensors[ours].shape != expected[ours].shape:
                    found, right = tuple(self.tensors[ours].shape), tuple(expected[ours].shape)
                    lines.append(f"wrong shape: {theirs} has {found} for {ours}, expected {right}")
        if lines:
            raise ValueError(
                "These tensors are of no resampler of this layout:\n  " + "\n  ".join(dict.fromkeys(lines))
            )


def read_layout(
    state: Mapping[str, Tensor], *, layout: str | None, prefix: str, head_channels: int | None
) -> ReadTensors:
    """Reads the tensors of a published resampler, and its sizes from them; see `PerceiverResampler.from_state_dict`."""
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()):
        raise ValueError("The state of a resampler must be tensors by name. Take state_dict() of a module.")
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    chosen = _told_by_names(state) if layout is None else _named(layout)
    tensors: dict[str, Tensor] = {}
    unknown = []
    for theirs, tensor in state.items():
        names = chosen.ours(theirs)
        if names is None:
            unknown.append(prefix + theirs)
            continue
        axis = chosen.bare.get(theirs)
        if axis is not None:
            if tensor.ndim != 3 or tensor.shape[axis] != 1:
                raise ValueError(
                    f"{prefix}{theirs} must have 3 axes, that at {axis} of size 1, got {tuple(tensor.shape)}."
                )
            tensor = tensor.squeeze(axis)
        num_axes = 1 if _is_vector(names[0]) else 2
        if tensor.ndim != num_axes or 0 in tensor.shape or tensor.shape[0] % len(names):
            raise ValueError(f"{prefix}{theirs} cannot be of the shape {tuple(tensor.shape)}.")
        for name, part in zip(names, tensor.chunk(len(names)), strict=True):
            tensors[name] = part.detach().clone(memory_format=torch.contiguous_format)
    if unknown:
        raise ValueError(
            f"This layout has no tensors {_listed(unknown)}. Say layout= if it is another, prefix= if the resampler is "
            "a part of a model."
        )
    return ReadTensors(layout=chosen, tensors=tensors, options=_options(tensors, chosen, head_channels))


def write_layout(state: Mapping[str, Tensor], layout: str, *, kinds: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns our tensors under the names of a layout; see `PerceiverResampler.to_state_dict`."""
    chosen = _named(layout)
    fixed = {**_DEFAULT_KINDS, **chosen.options}
    if differing := [f"{name}={fixed[name]!r}" for name in kinds if kinds[name] != fixed[name]]:
        raise ValueError(
            f"Resamplers of the layout {layout!r} have {', '.join(differing)}, got {dict(kinds)}."
        )
    if missing := [name for name in chosen.always if name not in state]:
        raise ValueError(f"Resamplers of the layout {layout!r} have {_listed(missing)}; this one has not.")
    written = {}
    for theirs, parts in chosen.theirs(state).items():
        tensor = state[parts[0]] if len(parts) == 1 else torch.cat([state[part] for part in parts])
        axis = chosen.bare.get(theirs)
        written[theirs] = tensor if axis is None else tensor.unsqueeze(axis)
    return written


def _options(
    tensors: Mapping[str, Tensor], layout: ResamplerLayout, head_channels: int | None
) -> dict[str, Any]:
    """The arguments of the resampler that tensors are of."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}

    def rows(name: str) -> int | None:
        return shapes[name][0] if name in shapes else None

    needed = [
        f"layers.0.{part}.weight" for part in ("attention.query", "attention.key", "feed_forward.hidden")
    ]
    if missing := [name for name in needed if name not in shapes]:
        raise ValueError(
            f"missing tensor: {', '.join(layout.theirs(missing))}. Its sizes say those of the others."
        )
    query, key, hidden = (shapes[name] for name in needed)
    latent_channels = query[1]
    told = rows("layers.0.attention.query_norm.weight")
    if told is None:
        told = layout.head_channels if head_channels is None else head_channels
    if told < 1 or query[0] % told or key[0] % told:
        raise ValueError(
            f"Queries of {query[0]} channels and keys of {key[0]} are no whole number of heads of {told} channels. Say "
            "head_channels=."
        )
    projections = {"input_projection.weight": "linear", "input_projection.gate.weight": "swiglu"}
    kind, channels, projection_channels = "none", key[1], None
    for name, of_kind in projections.items():
        if name in shapes:
            kind, channels = of_kind, shapes[name][1]
            projection_channels = shapes[name][0] if of_kind == "swiglu" else None
    pooled = rows("pooled_latents.output.weight")
    return {
        "channels": channels,
        "num_latents": rows("latents.weight") or 0,
        "depth": len({name.split(".")[1] for name in shapes if name.startswith("layers.")}),
        "latent_channels": latent_channels,
        "output_channels": rows("output_projection.weight"),
        "num_heads": query[0] // told,
        "num_kv_heads": key[0] // told,
        "head_channels": told,
        "qk_norm": "layers.0.attention.query_norm.weight" in shapes,
        "widening_factor": hidden[0] / latent_channels,
        "input_projection": kind,
        "projection_channels": projection_channels,
        "num_positions": rows("positions.weight"),
        "num_frames": rows("frames.weight"),
        "num_media": rows("media.weight"),
        "num_pooled_latents": 0 if pooled is None else pooled // latent_channels,
        **layout.options,
    }


def _is_vector(name: str) -> bool:
    """Whether one of ours has one axis: biases, and the weights of norms."""
    return name.endswith(".bias") or "norm." in name


def _told_by_names(state: Mapping[str, Tensor]) -> ResamplerLayout:
    for layout in LAYOUTS.values():
        if layout.mark in state:
            return layout
    raise ValueError(
        f"The tensors {_listed(list(state)) or 'none'} are of no resampler that is known here: {', '.join(LAYOUTS)}. "
        "Say prefix= if it is a part of a model."
    )


def _named(layout: str) -> ResamplerLayout:
    if layout not in LAYOUTS:
        raise ValueError(f"There is no layout {layout!r}. Known: {', '.join(LAYOUTS)}.")
    return LAYOUTS[layout]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

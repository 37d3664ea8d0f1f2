"""The resampler of vision-language models, as a part that stands alone; and the layouts of published ones."""

from perceiver_io.resampler.resampler import PerceiverResampler

__all__ = ["PerceiverResampler"]

"""Published Perceiver IO models: their layouts in other libraries, read and written."""

from perceiver_io.published.deepmind import from_deepmind
from perceiver_io.published.huggingface import load_transformers, save_transformers
from perceiver_io.published.layout import PublishedLayout, layout_of, layouts, published_config

__all__ = [
    "PublishedLayout",
    "from_deepmind",
    "layout_of",
    "layouts",
    "load_transformers",
    "published_config",
    "save_transformers",
]

"""Perceiver IO: any inputs, one encoder, any outputs.

The core knows no modality and no task; adapters are in `perceiver_io.adapters`, tasks in `perceiver_io.tasks`.
"""

from transformers import AutoConfig, AutoModel, AutoProcessor

from perceiver_io.adapter import InputAdapter
from perceiver_io.attention_maps import AttentionMap
from perceiver_io.byte_array import ByteArray, PackingConfig
from perceiver_io.causal import CausalEncoder, CausalEncoderConfig, LatentCache, SequenceAdapter
from perceiver_io.component import ComponentConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.decoder import (
    WHOLE_OUTPUT,
    Decoder,
    DecoderConfig,
    DecoderNeeds,
    DecoderParts,
    DecoderRequest,
    Encoded,
)
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.encoder import Encoder, EncoderConfig
from perceiver_io.input_processor import InputProcessor
from perceiver_io.loading import from_pretrained, load_model_plugins
from perceiver_io.model import PerceiverIO, PerceiverIOOutput
from perceiver_io.position import grid_coordinates
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.published import from_deepmind, published_config
from perceiver_io.query_attention import SharedAttentionConfig
from perceiver_io.registry import register_adapter, register_decoder, register_processor, register_task
from perceiver_io.resampler import PerceiverResampler
from perceiver_io.token_decoder import NextTokenDecoder
from perceiver_io.value_checks import check_values
from perceiver_io.vector_decoders import (
    ClassificationDecoder,
    PooledClassificationDecoder,
    RegressionDecoder,
)

__version__ = "0.1.0"

__all__ = [
    "WHOLE_OUTPUT",
    "AttentionMap",
    "ByteArray",
    "CausalEncoder",
    "CausalEncoderConfig",
    "ClassificationDecoder",
    "ComponentConfig",
    "Decoder",
    "DecoderConfig",
    "DecoderNeeds",
    "DecoderParts",
    "DecoderRequest",
    "DenseDecoder",
    "Encoded",
    "Encoder",
    "EncoderConfig",
    "InputAdapter",
    "InputProcessor",
    "LatentCache",
    "NextTokenDecoder",
    "PackingConfig",
    "PerceiverIO",
    "PerceiverIOConfig",
    "PerceiverIOOutput",
    "PerceiverIOPreTrainedModel",
    "PerceiverIOProcessor",
    "PerceiverResampler",
    "PooledClassificationDecoder",
    "RegressionDecoder",
    "SequenceAdapter",
    "SharedAttentionConfig",
    "check_values",
    "from_deepmind",
    "from_pretrained",
    "grid_coordinates",
    "published_config",
    "register_adapter",
    "register_decoder",
    "register_processor",
    "register_task",
]

AutoConfig.register(PerceiverIOConfig.model_type, PerceiverIOConfig)
AutoModel.register(PerceiverIOConfig, PerceiverIO)
AutoProcessor.register(PerceiverIOConfig, PerceiverIOProcessor)
load_model_plugins()

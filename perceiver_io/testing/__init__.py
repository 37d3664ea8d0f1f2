"""The contract that every adapter, decoder and trainable task keeps, as checks to run in any test framework.

Give each of your components a case, and run all checks on it, or one at a time:

    @pytest.mark.parametrize("check", ADAPTER_CHECKS.values(), ids=ADAPTER_CHECKS)
    def test_contract(check):
        check(AdapterCase(adapter_class=LidarAdapter, config=…, x=…, mask=…))

The checks of tasks are in `perceiver_io.testing.tasks`, which needs what training needs.
"""

from perceiver_io.testing.adapters import ADAPTER_CHECKS, AdapterCase, check_adapter
from perceiver_io.testing.decoders import DECODER_CHECKS, DecoderCase, check_decoder
from perceiver_io.testing.elements import ElementsAdapter
from perceiver_io.testing.operations import Operations

__all__ = [
    "ADAPTER_CHECKS",
    "DECODER_CHECKS",
    "AdapterCase",
    "DecoderCase",
    "ElementsAdapter",
    "Operations",
    "check_adapter",
    "check_decoder",
]

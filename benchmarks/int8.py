"""Int8 on a processor: published models at full size, and a trained one; how fast, how small, how near.

A model runs in float32 and in int8 in turns, in one process: as `perceiver_io.quantization` converts it, and as
others do (every linear layer by PyTorch's `quantize_dynamic`; by torchao all of them, or those that `int8_layers`
names). What is printed: the fastest pass in seconds, of wall time and of the processor; how many times as fast by the
latter; the size of the weights in a file; the largest and the root mean square deviation of the output, in its
standard deviations; and how often the same class (or token) has the largest logit. Weights are random. Of digits, a
model is trained on them, and the share that it tells right is printed.

    python benchmarks/int8.py                                             # three models, one thread: some minutes
    python benchmarks/int8.py --models language --threads 2 --ways float32 int8
    python benchmarks/int8.py --models vision-fourier --profile           # which operations take the time
    python benchmarks/int8.py --models digits                             # accuracy of a trained model
"""

from __future__ import annotations

import argparse
import copy
import io
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from digits import Ours, load, train
from peers import PEERS
from torch import Tensor, nn
from torch.profiler import profile
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

import perceiver_io as pio
from perceiver_io.quantization import int8_layers, quantize

DIGITS = "digits"
PUBLISHED = {
    "vision-conv": "vision-perceiver-conv",
    "vision-fourier": "vision-perceiver-fourier",
    "vision-learned": "vision-perceiver-learned",
    "language": "language-perceiver",
    "optical-flow": "optical-flow-perceiver",
    "multimodal": "multimodal-perceiver",
}


def by_torch(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        converted: nn.Module = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    return converted


def by_torchao(model: nn.Module, names: list[str] | None = None) -> nn.Module:
    converted = copy.deepcopy(model)
    chosen = None if names is None else lambda module, name: name in names
    quantize_(converted, Int8DynamicActivationInt8WeightConfig(), filter_fn=chosen)
    return converted


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "float32": lambda model: model,
    "int8": quantize,
    "quantize_dynamic": by_torch,
    "torchao": by_torchao,
    "torchao, int8_layers": lambda model: by_torchao(model, int8_layers(model)),
}


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, torch {torch.__version__}")
    print(
        f"{'model':16}{'way':22}{'wall':>8}{'cpu':>8}{'times':>7}{'MB':>7}{'largest':>9}{'rms':>8}{'same':>9}{'right':>8}"
    )
    for name in options.models:
        torch.manual_seed(0)
        compare(name, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models = [*PUBLISHED, DIGITS]
    usual = ["vision-conv", "vision-fourier", "language"]
    parser.add_argument("--models", nargs="+", choices=models, default=usual, metavar="NAME")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5, help="turns; the fastest counts")
    parser.add_argument("--profile", action="store_true", help="print the operations that take longest")
    return parser.parse_args()


def compare(name: str, options: argparse.Namespace) -> None:
    model, run, labels = trained() if name == DIGITS else published(name, options.batch_size)
    models = {way: WAYS[way](model) for way in ["float32", *options.ways]}
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in models}
    outputs: dict[str, Tensor] = {}
    with torch.inference_mode():
        for _ in range(options.repeats):
            for way, each in models.items():
                start = time.perf_counter(), time.process_time()
                outputs[way] = run(each)
                seconds[way].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    expected = outputs["float32"]
    for way, each in models.items():
        wall, processor = (min(turn[clock] for turn in seconds[way]) for clock in (0, 1))
        times = min(turn[1] for turn in seconds["float32"]) / processor
        apart = (outputs[way] - expected) / expected.std()
        found = outputs[way].argmax(-1)
        right = "" if labels is None else f"{(found == labels).double().mean().item():.2%}"
        print(
            f"{name:16}{way:22}{wall:>8.3f}{processor:>8.3f}{times:>7.2f}{megabytes(each):>7.1f}"
            f"{apart.abs().max().item():>9.4f}{apart.square().mean().sqrt().item():>8.4f}"
            f"{(found == expected.argmax(-1)).double().mean().item():>9.2%}{right:>8}",
            flush=True,
        )
        if options.profile:
            with torch.inference_mode(), profile() as recorded:
                run(each)
            print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=8))


def published(name: str, batch_size: int) -> tuple[nn.Module, Callable[[Any], Tensor], None]:
    """A model with random weights, and what is compared: its first output, its channels last."""
    model = pio.PerceiverIO(pio.published_config(PUBLISHED[name])).eval()
    inputs = PEERS[name].inputs(batch_size)

    def run(model: Any) -> Tensor:
        (output, *_) = model(inputs).outputs.values()
        return output.movedim(1, -1) if output.ndim == 4 else output

    return model, run, None


def trained() -> tuple[nn.Module, Callable[[Any], Tensor], Tensor]:
    """The package's model of `benchmarks/digits.py` after 30 epochs, on the digits that are held out."""
    _, images, _, labels = load()
    model = Ours(initialisation="balanced", published_features=False)
    train(model, epochs=30, batch_size=64, learning_rate=2e-3)
    return model.eval(), lambda model: model(images), labels


def megabytes(model: nn.Module) -> float:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell() / 1e6


if __name__ == "__main__":
    main()

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from perceiver_io.files import PARTIAL
from perceiver_io.running import RunFolder, Setup
from perceiver_io.running.checkpoints import (
    checkpoint_state,
    newest_checkpoint,
    remove_old_checkpoints,
    whole_checkpoints,
)
from perceiver_io.running.evaluator import evaluate_rows
from perceiver_io.running.interrupt import Terminated
from perceiver_io.running.trainer import Trainer

from . import toy

STEPS_PER_EPOCH = 5
NUM_STEPS = 15
STEP_AS_TEXT = '{"global_step": "5", "max_steps": 20}'
STEP_BEYOND = '{"global_step": 30, "max_steps": 20}'


class Crash(RuntimeError):
    pass


class At(TrainerCallback):
    """Does something at the end of a step, before the trainer looks whether it was interrupted."""

    def __init__(self, step: int, action: Any) -> None:
        self.step = step
        self.action = action

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            self.action()


def crash() -> None:
    raise Crash


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def checkpoint_steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("checkpoint-")) for path in whole_checkpoints(folder / "checkpoints")]


def assert_same_run(first: Trainer, second: Trainer) -> None:
    for name, value in toy.weights(first).items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    assert first.state.best_global_step == second.state.best_global_step
    evaluations = [
        [(entry["step"], entry["eval_loss"]) for entry in one.state.log_history if "eval_loss" in entry]
        for one in (first, second)
    ]
    assert evaluations[0] == evaluations[1]


def uninterrupted(folder: Path, **settings: Any) -> Trainer:
    trainer = toy.trainer(toy.recipe(folder / "uninterrupted", **settings))
    trainer.fit()
    return trainer


VARIANTS = [
    pytest.param({}, id="plain"),
    pytest.param({"best_metric": "none"}, id="last"),
    pytest.param({"best_metric": "accuracy", "optimizer": "lamb"}, id="lamb"),
    pytest.param({"gradient_accumulation_steps": 2, "schedule": "constant-then-cosine"}, id="accumulation"),
    pytest.param({"evaluate_every": 4, "precision": "bf16"}, id="steps"),
    pytest.param({"max_steps": 13}, id="max-steps"),
    pytest.param({"num_workers": 1, "num_epochs": 2}, id="workers", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("settings", VARIANTS)
@pytest.mark.parametrize("step", [5, 8])
def test_ctrl_c_and_sigterm_save_a_checkpoint_and_resuming_gives_the_same_bits(
    tmp_path: Path, settings: dict[str, Any], step: int
) -> None:
    recipe = toy.recipe(tmp_path / "run", **settings)
    step = step - 4 if "gradient_accumulation_steps" in settings else step
    stop = press_ctrl_c if step != 8 else terminate
    interrupted = toy.trainer(recipe, callbacks=[At(step, stop)])
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted.fit()
    assert caught.type is (Terminated if stop is terminate else KeyboardInterrupt)
    assert checkpoint_steps(tmp_path / "run")[-1] == step
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    resumed = toy.trainer(toy.again(recipe))
    resumed.fit(resume=True)
    assert_same_run(uninterrupted(tmp_path, **settings), resumed)


@pytest.mark.parametrize("step", [3, 9, 15])
@pytest.mark.parametrize("settings", [{}, {"evaluate_every": 2}])
def test_crash_then_resume_gives_the_same_bits(tmp_path: Path, step: int, settings: dict[str, Any]) -> None:
    recipe = toy.recipe(tmp_path / "run", **settings)
    with pytest.raises(Crash):
        toy.trainer(recipe, callbacks=[At(step, crash)]).fit()
    resumed = toy.trainer(toy.again(recipe))
    resumed.fit(resume=True)
    assert resumed.state.global_step == NUM_STEPS
    assert_same_run(uninterrupted(tmp_path, **settings), resumed)


def test_interrupted_twice(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path / "run")
    for step in (3, 4, 11):
        with pytest.raises(KeyboardInterrupt):
            toy.trainer(toy.again(recipe), callbacks=[At(step, press_ctrl_c)]).fit(resume=True)
    resumed = toy.trainer(toy.again(recipe))
    resumed.fit(resume=True)
    assert_same_run(uninterrupted(tmp_path), resumed)


@pytest.mark.parametrize("settings", [{}, {"max_steps": 13}, {"best_metric": "none"}])
def test_resuming_after_the_last_step_trains_no_further(tmp_path: Path, settings: dict[str, Any]) -> None:
    complete = uninterrupted(tmp_path, **settings)
    resumed = toy.trainer(toy.again(toy.recipe(tmp_path / "uninterrupted", **settings)))
    resumed.fit(resume=True)
    assert_same_run(complete, resumed)


def test_a_moved_run_still_finds_its_best_checkpoint(tmp_path: Path) -> None:
    # So high a rate that the first epoch stays the best.
    settings = {"learning_rate": 0.5}
    recipe = toy.recipe(tmp_path / "run", **settings)
    with pytest.raises(Crash):
        toy.trainer(recipe, callbacks=[At(12, crash)]).fit()
    (tmp_path / "run").rename(tmp_path / "moved")
    resumed = toy.trainer(toy.again(toy.recipe(tmp_path / "moved", **settings)))
    resumed.fit(resume=True)
    complete = uninterrupted(tmp_path, **settings)
    assert complete.state.best_global_step < NUM_STEPS
    assert_same_run(complete, resumed)


def test_the_best_checkpoint_is_kept_and_loaded(tmp_path: Path) -> None:
    trainer = uninterrupted(tmp_path, learning_rate=0.5, save_total_limit=1, num_epochs=5)
    best = trainer.state.best_global_step
    losses = {
        entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry
    }
    assert losses[best] == min(losses.values())
    assert checkpoint_steps(tmp_path / "uninterrupted") == sorted({best, 25})
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[best])


def test_without_validation_the_last_weights_are_kept(tmp_path: Path) -> None:
    trainer = toy.trainer(toy.recipe(tmp_path), validation=False)
    trainer.fit()
    assert trainer.state.global_step == NUM_STEPS
    assert checkpoint_steps(tmp_path) == [10, 15]


def test_the_seed_decides(tmp_path: Path) -> None:
    first, second, other = (
        toy.weights(uninterrupted(tmp_path / str(index), seed=seed)) for index, seed in enumerate((0, 0, 1))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "0" in name)


def test_workers_change_nothing(tmp_path: Path) -> None:
    assert_same_run(
        uninterrupted(tmp_path / "a", num_epochs=1),
        uninterrupted(tmp_path / "b", num_epochs=1, num_workers=2),
    )


@pytest.mark.parametrize("failing", ["torch.save", "safetensors"])
def test_a_full_disk_leaves_earlier_checkpoints_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def fill_disk() -> None:
        def write(*args: Any, **kwargs: Any) -> None:
            if failing == "torch.save":
                Path(args[1]).write_bytes(b"half")
            raise full

        target = "torch.save" if failing == "torch.save" else "transformers.modeling_utils.safe_save_file"
        monkeypatch.setattr(target, write)

    recipe = toy.recipe(tmp_path / "run")
    with pytest.raises(OSError, match="No space left on device") as caught:
        toy.trainer(recipe, callbacks=[At(7, fill_disk)]).fit()
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path / "run" / "checkpoints") == ["checkpoint-5"]
    monkeypatch.undo()
    resumed = toy.trainer(toy.again(recipe))
    resumed.fit(resume=True)
    assert_same_run(uninterrupted(tmp_path), resumed)


def test_ctrl_c_while_a_checkpoint_is_written_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def save_and_press_ctrl_c(value: Any, path: Any, *args: Any) -> None:
        if Path(path).name == "optimizer.pt":
            press_ctrl_c()
            press_ctrl_c()
        save(value, path, *args)

    monkeypatch.setattr("torch.save", save_and_press_ctrl_c)
    recipe = toy.recipe(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        toy.trainer(recipe).fit()
    assert os.listdir(tmp_path / "run" / "checkpoints") == ["checkpoint-5"]
    monkeypatch.undo()
    resumed = toy.trainer(toy.again(recipe))
    resumed.fit(resume=True)
    assert_same_run(uninterrupted(tmp_path), resumed)


def test_the_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    def press_twice() -> None:
        press_ctrl_c()
        press_ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        toy.trainer(toy.recipe(tmp_path), callbacks=[At(7, press_twice)]).fit()
    assert checkpoint_steps(tmp_path) == [5]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str, damage: str) -> None:
    recipe = toy.recipe(tmp_path)
    with pytest.raises(Crash):
        toy.trainer(recipe, callbacks=[At(8, crash)]).fit()
    checkpoint = newest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    content = (checkpoint / name).read_bytes()
    changed = {"truncated": content[: len(content) // 2], "empty": b"", "garbage": b"{]" * 100}[damage]
    (checkpoint / name).write_bytes(changed)
    with pytest.raises(ValueError, match=f"checkpoint {checkpoint} is damaged"):
        toy.trainer(toy.again(recipe)).fit(resume=True)


@pytest.mark.parametrize(
    "content", ["{}", '{"global_step": "5", "max_steps": 20}', '{"global_step": 30, "max_steps": 20}']
)
def test_a_state_that_says_nothing_is_damaged_and_not_the_end(tmp_path: Path, content: str) -> None:
    (tmp_path / "trainer_state.json").write_text(content)
    with pytest.raises(ValueError, match=r"damaged.*says step"):
        checkpoint_state(tmp_path)


def test_a_file_that_may_not_be_read_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    # Whoever runs the tests may be allowed to read all.
    monkeypatch.setattr("perceiver_io.running.checkpoints.read_json_object", forbid)
    with pytest.raises(PermissionError, match="may not be read: Permission denied"):
        checkpoint_state(tmp_path)


def test_half_of_an_old_checkpoint_goes_when_the_next_run_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy.recipe(tmp_path / "run")
    with pytest.raises(Crash):
        toy.trainer(recipe, callbacks=[At(12, crash)]).fit()
    folder = tmp_path / "run" / "checkpoints"
    steps = checkpoint_steps(tmp_path / "run")

    def killed(path: Path) -> None:
        if path.exists():
            (path / "config.json").unlink()
            raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr("perceiver_io.running.checkpoints.remove", killed)
        remove_old_checkpoints(folder, keep=1, best=None)
    assert checkpoint_steps(tmp_path / "run") == steps[1:]
    assert [path.name for path in folder.glob(f"{PARTIAL}*")] == [f"{PARTIAL}checkpoint-{steps[0]}"]
    RunFolder(tmp_path / "run").manifest.remove_leftovers()
    assert not list(folder.glob(f"{PARTIAL}*"))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path)
    with pytest.raises(Crash):
        toy.trainer(recipe, callbacks=[At(8, crash)]).fit()
    trainer = toy.trainer(toy.again(recipe))
    trainer.model.layers.append(torch.nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"damaged.*missing"):
        trainer.fit(resume=True)


def test_an_incomplete_checkpoint_is_passed_over(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path / "run")
    with pytest.raises(Crash):
        toy.trainer(recipe, callbacks=[At(12, crash)]).fit()
    assert checkpoint_steps(tmp_path / "run") == [5, 10]
    (tmp_path / "run" / "checkpoints" / "checkpoint-10" / "optimizer.pt").unlink()
    resumed = toy.trainer(toy.again(recipe))
    resumed.fit(resume=True)
    assert_same_run(uninterrupted(tmp_path), resumed)


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path: Path) -> None:
    trainer = toy.trainer(toy.recipe(tmp_path, log_every=2))
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"nan before step 2.*learning_rate"):
        trainer.fit()


def test_an_error_has_a_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Crash):
        toy.trainer(toy.recipe(tmp_path), callbacks=[At(3, crash)]).fit()
    print("error", file=sys.stderr)
    assert capsys.readouterr().err.splitlines()[-1] == "error"


def test_schedules(tmp_path: Path) -> None:
    def rates(**settings: Any) -> list[float]:
        trainer = toy.trainer(toy.recipe(tmp_path, learning_rate=1.0, **settings))
        trainer.create_optimizer_and_scheduler(20)
        found = []
        for _ in range(21):
            found.append(trainer.lr_scheduler.get_last_lr()[0])
            trainer.optimizer.step()
            trainer.lr_scheduler.step()
        return found

    constant = rates(schedule="constant", warmup_steps=4)
    assert constant == pytest.approx([0, 0.25, 0.5, 0.75] + [1.0] * 17)
    cosine = rates(schedule="cosine", warmup_fraction=0.2)
    assert cosine[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1]) and cosine[12] == pytest.approx(0.5)
    both = rates(schedule="constant-then-cosine", warmup_fraction=0, cosine_fraction=0.5)
    assert both[:11] == pytest.approx([1.0] * 11)
    assert both[15] == pytest.approx(0.5) and both[20] == pytest.approx(0, abs=1e-9)


def test_weight_decay_spares_biases_and_norms(tmp_path: Path) -> None:
    trainer = toy.trainer(toy.recipe(tmp_path, weight_decay=0.3, optimizer="lamb"))
    optimizer = trainer.create_optimizer()
    assert [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups] == [
        (0.3, 2),
        (0.0, 4),
    ]
    assert optimizer.defaults["max_grad_norm"] is None


def test_testing_leaves_the_history_alone(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path, num_epochs=1)
    trainer = toy.trainer(recipe)
    trainer.fit()
    before = list(trainer.state.log_history)
    setup = Setup(recipe=recipe, data=toy.Toys().data(recipe), model=trainer.model)
    values = evaluate_rows(toy.Toys(), setup, toy.ToyData(24, seed=2), forward=trainer.forward)
    assert set(values) == {"loss", "accuracy"}
    assert trainer.state.log_history == before


def test_all_output_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uninterrupted(tmp_path, log_every=0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "training: 100%" in captured.err
    assert "epoch 3   training loss" in captured.err
    assert "Writing model shards" not in captured.err


def test_tensorboard_gets_the_losses(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    trainer = toy.trainer(toy.recipe(tmp_path, num_epochs=1, report_to="tensorboard"))
    trainer.fit()
    assert list((tmp_path / "checkpoints").rglob("events.out.tfevents.*"))


def test_checkpoints_hold_no_paths_of_the_partial_folder(tmp_path: Path) -> None:
    uninterrupted(tmp_path)
    for checkpoint in whole_checkpoints(tmp_path / "uninterrupted" / "checkpoints"):
        best = json.loads((checkpoint / "trainer_state.json").read_text())["best_model_checkpoint"]
        assert Path(best).name.startswith("checkpoint-") and ".partial" not in best


def test_the_time_of_interrupted_training_is_added_up(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path)
    interrupted = toy.trainer(recipe, callbacks=[At(8, press_ctrl_c)])
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit()
    state = checkpoint_state(whole_checkpoints(tmp_path / "checkpoints")[-1])
    earlier = state.stateful_callbacks["_Clock"]["attributes"]["seconds"]
    resumed = toy.trainer(toy.again(recipe))
    resumed.fit(resume=True)
    assert resumed.train_seconds > earlier > 0
    complete = toy.trainer(toy.again(recipe))
    complete.fit(resume=True)
    assert complete.train_seconds == pytest.approx(resumed.train_seconds, abs=0.5)

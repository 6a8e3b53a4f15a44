"""Composition: which layer wins, who is named for it, and what a mistake is answered with."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from configs.compose import OUTSIDE_THE_HASH, Composed, compose, config_hash, to_yaml
from configs.errors import ConfigError
from configs.schema import ExperimentConfig
from configs.schema.attack import PGD, NoAttack, TargetedAPGD
from configs.schema.data import ClassificationData, OpenWorldData
from configs.schema.module import RobustFinetuning
from configs.schema.objective import FARE
from configs.sections import SCHEMA_DEFAULT, UNSET

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def message(experiment: str | Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(experiment, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


# precedence and provenance


def test_each_layer_outdoes_the_one_below_and_is_named(write: Write) -> None:
    write("low.yaml", "trainer: {steps: 1, accumulate: 1, log_every: 1, devices: 1}\noptim: {lr: 1}")
    write("high.yaml", "base: [low.yaml]\ntrainer: {accumulate: 2, log_every: 2, devices: 2}")
    path = write("run.yaml", "base: [high.yaml]\ntrainer: {log_every: 3, devices: 4}\ndata: {folder: d}")
    composed = compose(path, ["trainer.devices=8"])
    trainer = composed.config.trainer
    assert (trainer.nodes, trainer.steps, trainer.accumulate, trainer.log_every, trainer.devices) == (1, 1, 2, 3, 8)
    origins = [composed.origins[f"trainer.{key}"] for key in ("nodes", "steps", "accumulate", "log_every", "devices")]
    assert [Path(origin).name for origin in origins] == [
        SCHEMA_DEFAULT,
        "low.yaml",
        "high.yaml",
        "run.yaml",
        "command line",
    ]
    assert [Path(file).name for file in composed.inputs.files] == ["low.yaml", "high.yaml", "run.yaml"]


def test_later_bases_outdo_earlier_ones_and_their_own_bases(write: Write) -> None:
    write("first.yaml", "seed: 1")
    write("deep.yaml", "seed: 2")
    write("second.yaml", "base: deep.yaml")
    path = write("run.yaml", "base: [first.yaml, second.yaml]\ndata: {folder: d}")
    assert compose(path).config.seed == 2


def test_defaults_are_the_schemas_own(write: Write) -> None:
    composed = compose(write("plain.yaml", "data: {folder: d}"))
    assert composed.config == ExperimentConfig(name="plain", data=ClassificationData(folder="d"))


def test_every_key_has_an_origin_and_nothing_else_has() -> None:
    composed = compose("quickstart", ["data.near_ood=[]"])
    assert set(composed.origins) == _leaf_keys(dataclasses.asdict(composed.config))


def _leaf_keys(values: dict[str, object], path: str = "") -> set[str]:
    keys: set[str] = set()
    for key, value in values.items():
        dotted = f"{path}{key}"
        keys |= _leaf_keys(value, f"{dotted}.") if isinstance(value, dict) else {dotted}
    return keys


def test_name_is_the_files_unless_it_says_another(write: Write) -> None:
    parent = write("parent.yaml", "name: chosen\ndata: {folder: d}")
    child = write("child.yaml", "base: parent.yaml")
    assert compose(parent).config.name == "chosen"
    assert compose(child).config.name == "child"
    assert compose(child, ["name=other"]).config.name == "other"


def test_the_configuration_is_frozen_all_the_way_down() -> None:
    config = compose("quickstart").config
    for section in (config, config.trainer, config.attack, config.evaluation.attacks["pgd20"]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(section, dataclasses.fields(section)[0].name, None)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("logging.tags=[a, 'b c']", ["a", "b c"]),
        ("logging.tags=[]", []),
        ("logging.group='3'", "3"),
        ("logging.group=null", None),
        ("logging.group=a=b", "a=b"),
        ("evaluation.eps_sweep_255=[0, 1e-1]", [0.0, 0.1]),
        ("trainer.clip_norm=1", 1.0),
        ("trainer.deterministic=true", True),
    ],
)
def test_overrides_are_read_as_yaml(override: str, value: object) -> None:
    section, key = override.partition("=")[0].split(".")
    found = getattr(getattr(compose("quickstart", [override]).config, section), key)
    assert found == value
    assert type(found) is type(value)


def test_references_to_other_keys_and_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMUNOCLIP_TEST_FOLDER", "somewhere")
    text = "data: {folder: '${oc.env:IMMUNOCLIP_TEST_FOLDER}'}\noptim: {warmup_steps: '${trainer.steps}'}"
    config = compose(write("run.yaml", text), ["trainer.steps=7"]).config
    assert (config.data.folder, config.optim.warmup_steps) == ("somewhere", 7)
    monkeypatch.delenv("IMMUNOCLIP_TEST_FOLDER")
    assert "data.folder (" in message(write("run.yaml", text))


FLOATS = {"optim.lr": 1e-9, "optim.weight_decay": 0.0, "attack.step_255": 1e-6}


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(FLOATS)), st.floats(1e-6, 1e6)), min_size=1, max_size=6))
def test_the_last_setting_of_a_key_wins(drawn: list[tuple[str, float]]) -> None:
    config = compose("quickstart", [f"{key}={value!r}" for key, value in drawn]).config
    for key, value in dict(drawn).items():
        section, name = key.split(".")
        assert getattr(getattr(config, section), name) == value


# polymorphic sections


def test_a_change_of_kind_keeps_shared_keys_and_drops_the_rest(write: Write) -> None:
    write("base.yaml", "attack: {kind: pgd, eps_255: 3, step_255: 1, momentum: 0.5}\ndata: {folder: d}")
    child = write("child.yaml", "base: base.yaml\nattack: {kind: apgd_t, targets: 2}")
    assert compose(child).config.attack == TargetedAPGD(eps_255=3.0, targets=2)
    assert compose(child, ["attack.kind=none"]).config.attack == NoAttack()
    assert compose(child, ["attack.kind=pgd"]).config.attack == PGD(eps_255=3.0, step_255=1.0, momentum=0.5)


def test_keys_may_be_set_in_a_layer_below_the_kind(write: Write) -> None:
    write("eps.yaml", "attack: {eps_255: 3}\ndata: {folder: d}")
    write("kind.yaml", "attack: {kind: pgd}")
    child = write("child.yaml", "base: [eps.yaml, kind.yaml]")
    assert compose(child).config.attack == PGD(eps_255=3.0)
    assert compose(child, ["attack.kind=none"]).config.attack == NoAttack()


def test_a_key_of_another_kind_is_an_error_from_the_change_upwards(write: Write) -> None:
    write("base.yaml", "attack: {kind: apgd_t, targets: 2}\ndata: {folder: d}")
    same = message(write("same.yaml", "base: base.yaml\nattack: {kind: pgd, targets: 2}"))
    assert "unknown key 'attack.targets' with kind=pgd" in same
    assert "same.yaml" in same
    assert "kind=apgd_t or kind=fab" in same
    above = write("above.yaml", "base: base.yaml\nattack: {kind: pgd}")
    assert "command line" in message(above, "attack.targets=2")


def test_a_key_that_no_kind_has_is_never_dropped(write: Write) -> None:
    write("base.yaml", "attack: {kind: pgd, stepz: 3}\ndata: {folder: d}")
    text = message(write("child.yaml", "base: base.yaml\nattack: {kind: apgd}"))
    assert "base.yaml" in text
    assert "attack.steps" in text


def test_nested_kinds_are_chosen_on_their_own() -> None:
    config = compose("tecoa_openmoji", ["module.objective.logit_scale=50"]).config
    assert isinstance(config.module, RobustFinetuning)
    overrides = ["module.objective.kind=fare", "module.objective.clean_weight=1"]
    assert compose("tecoa_openmoji", overrides).config.module == RobustFinetuning(objective=FARE(clean_weight=1.0))


def test_null_empties_an_optional_section_and_a_higher_layer_fills_it_anew(write: Write) -> None:
    path = write("run.yaml", "base: data/openmoji.yaml\ndata: {pack: null}")
    composed = compose(path)
    assert composed.config.data.pack is None
    assert composed.origins["data.pack"].endswith("run.yaml")
    refilled = compose(path, ["data.pack.source=image_folder", "data.pack.root=images"]).config.data.pack
    assert dataclasses.asdict(refilled) == {"source": "image_folder", "root": "images", "shard_samples": 512}  # type: ignore[arg-type]


def test_named_attacks_merge_by_name_and_null_takes_one_out() -> None:
    extra = compose("quickstart", ["evaluation.attacks.pgd20.steps=7", "evaluation.attacks.wide.kind=pgd"])
    attacks = extra.config.evaluation.attacks
    assert list(attacks) == ["pgd20", "apgd", "wide"]
    assert isinstance(attacks["pgd20"], PGD)
    assert (attacks["pgd20"].steps, attacks["pgd20"].step_255) == (7, 1.0)
    assert list(compose("quickstart", ["evaluation.attacks.apgd=null"]).config.evaluation.attacks) == ["pgd20"]
    assert compose("quickstart", ["evaluation.attacks=null"]).config.evaluation.attacks == {}


def test_data_of_each_kind_keeps_what_it_shares() -> None:
    config = compose("quickstart", ["data.kind=classification"]).config
    assert type(config.data) is ClassificationData
    assert config.data.folder == ".cache/openmoji-v1"
    assert type(compose("quickstart").config.data) is OpenWorldData


# mistakes


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optim.lrr=1", ["unknown key 'optim.lrr'", "did you mean 'optim.lr'?"]),
        ("attack.eps=1", ["unknown key 'attack.eps' with kind=pgd", "'attack.eps_255'"]),
        ("lr=1", ["unknown key 'lr'", "did you mean 'optim.lr'?"]),
        ("zzzzzz=1", ["unknown key 'zzzzzz'", "choose from: name, seed, output"]),
        ("trainer.steps=abc", ["trainer.steps must be a whole number, got 'abc'"]),
        ("trainer.steps=1.5", ["trainer.steps must be a whole number, got 1.5"]),
        ("trainer.steps=null", ["trainer.steps must be a whole number, got None"]),
        ("trainer.steps.x=3", ["trainer.steps must be a whole number, got {'x': 3}"]),
        ("trainer.clip_norm=x", ["trainer.clip_norm must be a number or null, got 'x'"]),
        ("attack.eps_255=8/255", ["attack.eps_255 must be a number, got '8/255'"]),
        ("logging.tags=a", ["logging.tags must be a list, every entry text, got 'a'"]),
        ("trainer.precision=16", ["trainer.precision must be one of 32-true, bf16-mixed, bf16-true, got 16"]),
        ("attack.kind=pdg", ["attack.kind must be one of none, pgd, apgd, apgd_t, fab", "; got 'pdg'"]),
        ("attack.kind=[pgd]", ["attack.kind must be one of none, pgd, apgd, apgd_t, fab", "; got ['pgd']"]),
        ("data.pack.source=x", ["data.pack.source must be one of openmoji, image_folder; got 'x'"]),
        ("evaluation.attacks.x.steps=3", ["evaluation.attacks.x.kind is not set", "none, pgd, apgd, apgd_t"]),
        ("data.folder=???", ["not set: data.folder", "data.folder=VALUE"]),
        ("trainer=3", ["trainer is a section and can't be 3", "trainer.KEY"]),
        ("attack.eps_255=-1", ["attack.eps_255 must be > 0 and <= 255, in 1/255 of the pixel range, got -1.0"]),
        ("attack.eps_255=.inf", ["attack.eps_255 must be finite, got inf"]),
        ("evaluation.attacks.pgd20.eps_255=-1", ["evaluation.attacks.pgd20.eps_255 must be > 0"]),
        ("optim.lr=.nan", ["optim.lr must be finite, got nan"]),
        ("evaluation.eps_sweep_255=[1, 1]", ["evaluation.eps_sweep_255 has an entry twice"]),
        ("data.near_ood=[train]", ["data.near_ood names 'train' twice"]),
        ("name=a/b", ["name becomes a folder", "'a/b'"]),
    ],
)
def test_a_wrong_override_names_key_value_remedy_and_the_command_line(override: str, parts: list[str]) -> None:
    text = message("quickstart", override)
    for part in [*parts, "(command line)"]:
        assert part in text


@pytest.mark.parametrize(
    "overrides",
    [
        ["optim.fused=true", "trainer.clip_norm=1", "trainer.precision=bf16-mixed"],
        ["optim.fused=true", "optim.kind=sgd"],
        ["data.batch_size=10", "trainer.devices=4"],
        ["module.kind=contrastive_pretraining"],
        ["trainer.patience=3"],
        ["trainer.patience=3", "trainer.validate_every=999999"],
        ["trainer.ema=1"],
        ["trainer.strategy=fsdp", "attack={kind: auto_attack, steps: 2}"],
        ["trainer.strategy=fsdp", "evaluation.validation_attack={kind: square, queries: 9}"],
        ["trainer.strategy=fsdp", "module.objective={kind: tga_zsr}"],
        ["trainer.strategy=fsdp", "module.objective={kind: saft, descriptions: none.json}"],
        ["trainer.strategy=fsdp", "trainer.compile=default"],
        ["module.objective.adversary=per_level", "attack.loss=ce"],
    ],
)
def test_impossible_combinations_name_their_keys(overrides: list[str]) -> None:
    text = message("quickstart", *overrides)
    assert overrides[0].partition("=")[0] in text


def test_pretraining_with_an_adversary_is_refused() -> None:
    assert "attack.kind=none" in message("pretrain_mini", "attack.kind=pgd")


def test_pretraining_has_no_robust_accuracy_to_wait_for_and_two_towers_to_share() -> None:
    assert "trainer.patience" in message("pretrain_mini", "trainer.patience=3")
    assert "trainer.strategy=fsdp" in message("pretrain_mini", "trainer.strategy=fsdp")


@pytest.mark.parametrize("override", ["steps", "=3", "a..b=3", "a[0]=3", "trainer.steps=[1", "base=x.yaml"])
def test_what_is_not_an_override(override: str) -> None:
    assert override.partition("=")[0] in message("quickstart", override)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: 1\nseed: 1\nseed: 2\n", ["line 3", "duplicate key seed"]),
        ("trainer:\n  steps: 1\n  steps: 2\n", ["line 3", "duplicate key steps"]),
        ("seed: 1\ntrainer: [1\n", ["line 3"]),
        ("- seed\n", ["holds a list"]),
        ("1: x\n", ["the key 1", "is not text"]),
        ("seed: !!python/object:os.system x\n", ["line 1"]),
        ("seed: '${'\n", ["can't be read"]),
        ("data: {folder: d}\nseed: [1]\n", ["seed must be a whole number"]),
        ("stepz: 3\n", ["unknown key 'stepz'"]),
        ("base: 3\n", ["base in", "must be a list"]),
        ("base: data/openmojy.yaml\n", ["'data/openmojy.yaml'", "did you mean 'data/openmoji.yaml'?"]),
        ("base: run.yaml\n", ["is its own base"]),
    ],
)
def test_a_broken_file_is_named(write: Write, text: str, parts: list[str]) -> None:
    found = message(write("run.yaml", text))
    for part in [*parts, "run.yaml"]:
        assert part in found


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"seed: \xff\xfe")
    assert "run.yaml" in message(path)


def test_a_cycle_of_bases_is_told_whole(write: Write) -> None:
    write("one.yaml", "base: two.yaml")
    write("two.yaml", "base: one.yaml")
    text = message(write("run.yaml", "base: one.yaml"))
    assert [part.rpartition("/")[2] for part in text.partition("way of ")[2].split(" -> ")] == [
        "run.yaml",
        "one.yaml",
        "two.yaml",
        "one.yaml",
    ]


def test_the_same_base_twice_is_no_cycle(write: Write) -> None:
    write("root.yaml", "data: {folder: d}")
    write("left.yaml", "base: root.yaml")
    write("right.yaml", "base: root.yaml")
    assert compose(write("run.yaml", "base: [left.yaml, right.yaml]")).config.data.folder == "d"


def test_unknown_experiments_and_files(tmp_path: Path) -> None:
    assert "did you mean 'quickstart'?" in message("quikstart")
    assert "missing.yaml" in message(tmp_path / "missing.yaml")


# hash


def test_layering_does_not_reach_the_hash(write: Write) -> None:
    write("attack.yaml", "attack: {kind: apgd, steps: 3}")
    write("data.yaml", "data: {folder: d}")
    layered = write("layered.yaml", "base: [attack.yaml, data.yaml]\ntrainer: {steps: 5}\nattack: {kind: pgd}")
    flat = write("flat.yaml", "data: {folder: d}\nattack: {steps: 3, kind: pgd, eps_255: 8}\ntrainer: {nodes: 1}")
    assert compose(layered).hash == compose(flat, ["trainer.steps=5"]).hash


OTHER_VALUES: dict[str, str] = {
    "name": "other",
    "seed": "9",
    "output": "elsewhere",
    "logging": "{project: other, tags: [x]}",
    "evaluation": "{samples: 9, attacks: {pgd20: {steps: 21}}}",
    "vaccination.cache": "elsewhere",
    "data.workers": "0",
    "data.start_method": "spawn",
    "trainer.devices": "2",
    "trainer.nodes": "2",
    "trainer.gradient_checkpointing": "true",
    "trainer.log_every": "99",
    "trainer.checkpoint_every": "99",
    "trainer.threads": "3",
    "trainer.wall_minutes": "7",
}


@pytest.mark.parametrize("key", sorted(OUTSIDE_THE_HASH))
def test_what_changes_no_training_does_not_reach_the_hash(key: str) -> None:
    base, other = compose("quickstart"), compose("quickstart", [f"{key}={OTHER_VALUES[key]}"])
    assert other.config != base.config
    assert other.hash == base.hash


def test_a_bank_reaches_the_hash_where_the_model_is_vaccinated_with_it() -> None:
    base = compose("quickstart").hash
    assert compose("quickstart", ["antibodies.mined.candidates=7"]).hash == base
    assert compose("quickstart", ["antibodies.llm.selection.duplicates=0.5"]).hash != base
    assert compose("quickstart", ["vaccination=null"]).hash != base
    assert (
        compose("quickstart", ["vaccination=null", "antibodies.llm.selection.duplicates=0.5"]).hash
        == compose("quickstart", ["vaccination=null"]).hash
    )


@pytest.mark.parametrize("key", ["validation_attack={kind: none}", "validation_samples=9"])
def test_validation_reaches_the_hash_where_it_chooses_the_weights(key: str) -> None:
    for patience, reaches in (("null", False), ("3", True)):
        waits = ["trainer.validate_every=5", f"trainer.patience={patience}"]
        base, other = (compose("quickstart", [*waits, *more]).hash for more in ([], [f"evaluation.{key}"]))
        assert (base != other) == reaches


@pytest.mark.parametrize(
    "override",
    [
        "optim.lr=3e-3",
        "trainer.steps=151",
        "trainer.precision=bf16-mixed",
        "trainer.compile=default",
        "trainer.ema=0.9",
        "data.batch_size=32",
        "data.folder=other",
        "attack.eps_255=4",
        "attack.random_start=false",
        "model.checkpoint=x.safetensors",
        "module.objective.kind=fare",
    ],
)
def test_what_may_change_the_training_reaches_the_hash(override: str) -> None:
    assert compose("quickstart", [override]).hash != compose("quickstart").hash


@settings(deadline=None)
@given(st.floats(1e-6, 1.0), st.floats(1e-6, 1.0))
def test_two_learning_rates_share_a_hash_only_when_equal(one: float, two: float) -> None:
    hashes = [config_hash(_changed("optim", lr=value)) for value in (one, two)]
    assert (hashes[0] == hashes[1]) == (one == two)


def test_the_hash_is_the_same_in_another_process_and_hash_seed() -> None:
    code = "from configs.compose import compose; print(compose('quickstart').hash)"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == compose("quickstart").hash


def test_the_run_folder_holds_name_hash_and_seed() -> None:
    composed = compose("quickstart", ["seed=7", "output=there"])
    assert composed.run_folder == Path("there") / "quickstart" / f"{composed.hash}-s7"


# the resolved YAML


def test_resolved_is_complete_and_plain() -> None:
    composed = compose("quickstart")
    loaded = OmegaConf.to_container(OmegaConf.create(composed.resolved))
    assert loaded == dataclasses.asdict(composed.config)
    assert UNSET not in json.dumps(loaded)


@settings(max_examples=10, deadline=None)
@given(group=st.text(st.characters(codec="utf-8", exclude_characters="$\\", exclude_categories=["C"]), max_size=20))
def test_any_text_survives_the_resolved_yaml(tmp_path_factory: pytest.TempPathFactory, group: str) -> None:
    config = _changed("logging", group=group)
    path = tmp_path_factory.mktemp("resolved") / "run.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert compose(path).config == config


@cache
def _quickstart() -> ExperimentConfig:
    return compose("quickstart").config


def _changed(section: str, **values: object) -> ExperimentConfig:
    changed = dataclasses.replace(getattr(_quickstart(), section), **values)
    return dataclasses.replace(_quickstart(), **{section: changed})


def test_reading_the_resolved_yaml_gives_the_same_run(write: Write) -> None:
    first: Composed = compose("quickstart", ["seed=3", "attack.eps_255=2.5", "optim.lr=1e-5"])
    second = compose(write("config.yaml", first.resolved))
    assert (second.config, second.hash, second.resolved) == (first.config, first.hash, first.resolved)
    assert config_hash(second.config) == first.hash
    assert math.isclose(second.config.optim.lr, 1e-5)

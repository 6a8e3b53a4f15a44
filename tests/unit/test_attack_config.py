"""Attack settings: what AutoAttack consists of, what is out of range, and files named in the place of a section."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.compose import compose
from configs.errors import ConfigError, FieldError
from configs.layers import fragment, fragment_names
from configs.schema.attack import (
    APGD,
    ATTACKS,
    CW,
    FAB,
    PGD,
    AutoAttack,
    NoAttack,
    SingleAttack,
    Square,
    TargetedAPGD,
    TorchAttack,
)

SETTINGS: list[Any] = [
    PGD(), APGD(), TargetedAPGD(), FAB(), Square(), CW(), AutoAttack(), TorchAttack(name="MIFGSM"),
]  # fmt: skip


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose("quickstart", overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


# what AutoAttack consists of; the figures are those of the paper and of its authors' code


def test_standard_is_four_attacks_on_nine_targets() -> None:
    assert AutoAttack(eps_255=4).members == (
        APGD(eps_255=4, steps=100, restarts=1, loss="ce"),
        TargetedAPGD(eps_255=4, steps=100, targets=9),
        FAB(eps_255=4, steps=100, targets=9),
        Square(eps_255=4, queries=5000),
    )


def test_standard_under_l1_restarts_five_times_and_aims_at_five() -> None:
    ce, targeted, fab, square = AutoAttack(norm="l1", eps_255=3060).members
    assert ce == APGD(norm="l1", eps_255=3060, restarts=5, loss="ce")
    assert targeted == TargetedAPGD(norm="l1", eps_255=3060, targets=5)
    assert fab == FAB(norm="l1", eps_255=3060, targets=9)
    assert square == Square(norm="l1", eps_255=3060)


def test_plus_restarts_five_times() -> None:
    assert AutoAttack(version="plus").members == (
        APGD(restarts=5, loss="ce"),
        APGD(restarts=5, loss="dlr"),
        FAB(restarts=5, targets=None),
        Square(),
        TargetedAPGD(targets=9),
        FAB(targets=9),
    )


def test_rand_takes_the_mean_of_twenty_gradients() -> None:
    assert AutoAttack(version="rand").members == (APGD(loss="ce", eot=20), APGD(loss="dlr", eot=20))


def test_what_is_set_holds_in_every_version() -> None:
    found = AutoAttack(version="plus", restarts=2, targets=3, steps=7, queries=11, eot=4).members
    assert {member.steps for member in found if not isinstance(member, Square)} == {7}
    assert {member.queries for member in found if isinstance(member, Square)} == {11}
    assert {member.eot for member in found if isinstance(member, (APGD, TargetedAPGD))} == {4}
    assert {member.restarts for member in found if isinstance(member, APGD)} == {2}
    assert {member.targets for member in found if isinstance(member, TargetedAPGD)} == {3}
    assert [(member.targets, member.restarts) for member in found if isinstance(member, FAB)] == [(None, 2), (3, 1)]


@given(
    st.permutations(["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square", "cw"]),
    st.floats(0.1, 255),
    st.sampled_from(["linf", "l2"]),
)
def test_a_custom_list_runs_in_its_order_within_its_budget(names: list[str], eps_255: float, norm: Any) -> None:
    alone: dict[str, SingleAttack] = {
        name: AutoAttack(version="custom", norm=norm, eps_255=eps_255, attacks=[name]).members[0] for name in names
    }
    found = AutoAttack(version="custom", norm=norm, eps_255=eps_255, attacks=names).members
    assert found == tuple(alone[name] for name in names)
    assert len(set(found)) == len(names)
    assert {(member.norm, member.eps_255) for member in found} == {(norm, eps_255)}


# ranges


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.kind)
@pytest.mark.parametrize("eps_255", [0.0, -1.0, 255.5, float("inf"), float("nan")])
def test_an_linf_radius_is_within_the_pixel_range(setting: Any, eps_255: float) -> None:
    with pytest.raises(FieldError, match="must be > 0 and <= 255") as caught:
        replace(setting, eps_255=eps_255)
    assert caught.value.field == "eps_255"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.kind)
def test_an_l2_radius_may_be_larger(setting: Any) -> None:
    assert replace(setting, norm="l2", eps_255=765.0).eps_255 == 765.0
    with pytest.raises(FieldError, match="must be > 0"):
        replace(setting, norm="l2", eps_255=float("inf"))


COUNTS = ("steps", "restarts", "targets", "queries", "eot", "search_steps")


@pytest.mark.parametrize(
    ("setting", "name"),
    [(setting, field.name) for setting in SETTINGS for field in fields(setting) if field.name in COUNTS],
    ids=str,
)
def test_counts_start_at_one(setting: Any, name: str) -> None:
    assert getattr(replace(setting, **{name: 1}), name) == 1
    with pytest.raises(FieldError, match="must be >= 1") as caught:
        replace(setting, **{name: 0})
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["attack.kind=auto_attack", "attack.version=standart"], ["attack.version", "standard, plus, rand, custom"]),
        (["attack.kind=auto_attack", "attack.norm=l3"], ["attack.norm must be one of linf, l2, l1", "'l3'"]),
        (["attack.norm=l1"], ["attack.norm must be one of linf, l2", "'l1'"]),
        (["attack.kind=cw", "attack.norm=l1"], ["attack.norm must be one of linf, l2", "'l1'"]),
        (["attack=auto_attack/quick", "attack.attacks=[apgd-cee]"], ["attack.attacks", "did you mean 'apgd-ce'?"]),
        (["attack=auto_attack/quick", "attack.attacks=[]"], ["attack.attacks", "at least one"]),
        (["attack=auto_attack/quick", "attack.attacks=[cw, cw]"], ["attack.attacks", "twice"]),
        (["attack=auto_attack/standard", "attack.attacks=[cw]"], ["attack.attacks", "version=custom"]),
        (["attack=auto_attack/plus", "attack.norm=l1"], ["attack.version", "use standard for l1"]),
        (
            ["attack=auto_attack/quick", "attack.norm=l1", "attack.attacks=[square, cw]"],
            ["attack.attacks names cw, which has no norm l1"],
        ),
        (["attack.kind=torchattacks", "attack.name=AutoAttack"], ["attack.name", "attack.kind=auto_attack"]),
        (["attack.kind=torchattacks", "attack.arguments.eps=0.1"], ["attack.arguments", "set eps_255"]),
        (["attack.kind=apgd", "attack.targets=3"], ["unknown key 'attack.targets' with kind=apgd", "kind=apgd_t"]),
        (["evaluation.slots=0"], ["evaluation.slots must be >= 1"]),
        (["evaluation.check_samples=0"], ["evaluation.check_samples must be >= 1"]),
        (["evaluation.validation_samples=0"], ["evaluation.validation_samples must be >= 1"]),
        (["evaluation.precision=fp16"], ["evaluation.precision must be one of fp32, bf16"]),
    ],
)
def test_what_can_not_be_is_refused_in_one_sentence(overrides: list[str], parts: list[str]) -> None:
    text = message(*overrides)
    for part in parts:
        assert part in text


# files in the place of a section


def test_every_shipped_attack_can_be_named_and_is_what_its_file_says() -> None:
    assert {"auto_attack/standard", "none", "square"} <= set(fragment_names("attack"))
    for name in fragment_names("attack"):
        attack = compose("quickstart", [f"attack={name}"]).config.attack
        said = fragment("attack", name).values
        assert {key: getattr(attack, key) for key in said} == said
        assert attack == ATTACKS[said["kind"]](**said)


def test_a_named_file_stands_for_all_below_and_keys_above_change_it() -> None:
    composed = compose("quickstart", ["attack=auto_attack/standard", "attack.eps_255=4"])
    assert composed.config.attack == AutoAttack(eps_255=4)
    assert composed.origins["attack.version"] == "configs/attack/auto_attack/standard.yaml"
    assert composed.origins["attack.eps_255"] == "command line"
    assert "configs/attack/auto_attack/standard.yaml" in composed.inputs.files
    assert compose("quickstart", ["attack.steps=3", "attack=none"]).config.attack == NoAttack()


def test_a_file_may_be_named_wherever_an_attack_is(tmp_path: Path) -> None:
    own, run = tmp_path / "own.yaml", tmp_path / "run.yaml"
    own.write_text("attack: {kind: fab, targets: 2}\n", encoding="utf-8")
    run.write_text(
        "data: {folder: d}\nattack: auto_attack/standard\nevaluation: {validation_attack: square, "
        f"attacks: {{weak: {{base: square, queries: 3}}, own: {own}}}}}\n",
        encoding="utf-8",
    )
    config = compose(run).config
    assert config.attack == AutoAttack()
    assert config.evaluation.validation_attack == Square()
    assert config.evaluation.attacks == {"weak": Square(queries=3), "own": FAB(targets=2)}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("attack=auto_attack/standrd", ["auto_attack/standrd.yaml", "did you mean 'auto_attack/standard'?"]),
        ("attack=pgd", ["(command line)", "set attack.kind=pgd"]),
        ("attack=configs/trainer/cpu.yaml", ["configs/trainer/cpu.yaml must hold one section, 'attack:'"]),
        ("trainer=cpu", ["trainer is a section and can't be 'cpu'"]),
    ],
)
def test_what_can_not_stand_for_a_section(override: str, parts: list[str]) -> None:
    text = message(override)
    for part in parts:
        assert part in text


def test_arguments_of_torchattacks_pass_as_they_are_written(tmp_path: Path) -> None:
    overrides = ["attack=torchattacks_mifgsm_8", "attack.arguments.steps=3", "attack.arguments.x=[1, a]"]
    first = compose("quickstart", overrides)
    assert isinstance(first.config.attack, TorchAttack)
    assert first.config.attack.arguments == {"alpha": 0.00784, "steps": 3, "decay": 1.0, "x": [1, "a"]}
    path = tmp_path / "config.yaml"
    path.write_text(first.resolved, encoding="utf-8")
    assert (compose(path).config, compose(path).hash) == (first.config, first.hash)


def test_the_validation_attack_reaches_neither_the_hash_nor_pretraining() -> None:
    plain = compose("quickstart")
    watched = compose("quickstart", ["evaluation.validation_attack=auto_attack/quick"])
    assert plain.config.evaluation.validation_attack is None
    assert isinstance(watched.config.evaluation.validation_attack, AutoAttack)
    assert watched.hash == plain.hash
    with pytest.raises(ConfigError, match="validates on clean pixels"):
        compose("pretrain_mini", ["evaluation.validation_attack=square"])

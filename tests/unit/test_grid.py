"""`evaluate --attacks NAMES --eps RADII`: which attacks that means, and what else stays as it was."""

from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.compose import compose
from configs.errors import ConfigError
from configs.grid import SHORT_NAMES, compose_measurement
from configs.schema.attack import APGD, CW, FAB, PGD, Attack, AutoAttack, Square


def measured(*overrides: str, attacks: str | None = None, eps: str | None = None) -> dict[str, Attack]:
    return compose_measurement("quickstart", overrides, attacks, eps).config.evaluation.attacks


def test_without_options_it_is_the_experiment() -> None:
    assert compose_measurement("quickstart", ["seed=3"]) == compose("quickstart", ["seed=3"])


def test_each_attack_meets_each_radius_in_ascending_order() -> None:
    found = measured(attacks="pgd20,apgd-ce,aa", eps="4, 1,2.5")
    assert list(found) == [f"{name}@{eps}" for name in ("pgd20", "apgd-ce", "aa") for eps in ("1", "2.5", "4")]
    assert found["pgd20@4"] == PGD(eps_255=4, step_255=0.5, steps=20, loss="ce")
    assert found["apgd-ce@1"] == APGD(eps_255=1, loss="ce")
    assert found["aa@2.5"] == AutoAttack(eps_255=2.5)


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.sampled_from(SHORT_NAMES), min_size=1, unique=True),
    st.lists(st.floats(0.01, 255).map(lambda eps: float(f"{eps:.3g}")), min_size=1, max_size=3, unique=True),
)
def test_any_names_and_radii_give_their_whole_product(names: list[str], radii: list[float]) -> None:
    found = measured(attacks=",".join(names), eps=",".join(map(str, radii)))
    assert [getattr(each, "eps_255", None) for each in found.values()] == sorted(radii) * len(names)
    for first, second in pairwise(found.values()):
        if first.kind == second.kind == "pgd":
            assert first.step_255 / first.eps_255 == pytest.approx(second.step_255 / second.eps_255)


def test_short_names_take_the_radii_that_the_experiment_is_measured_within() -> None:
    assert list(measured(attacks="square")) == ["square@6"]
    two = compose_measurement("fare_vit_b32_imagenet", ["data.folder=d"], "fab,fab-t")
    assert list(two.config.evaluation.attacks) == ["fab@2", "fab@4", "fab-t@2", "fab-t@4"]
    bare = ["evaluation.attacks=null", "attack.eps_255=3"]
    assert measured(*bare, attacks="fab-t") == {"fab-t@3": FAB(eps_255=3)}


def test_files_keep_their_own_radius_unless_others_are_asked_for() -> None:
    assert list(measured(attacks="cw_linf_1,aa")) == ["cw_linf_1", "aa@6"]
    assert measured(attacks="cw_linf_1", eps="2")["cw_linf_1@2"] == CW(eps_255=2, step_255=0.5, steps=20)


def test_radii_alone_go_through_the_experiments_attacks() -> None:
    found, own = measured(eps="3"), compose("quickstart").config.evaluation.attacks
    assert isinstance(own["pgd20"], PGD)
    assert found["pgd20@3"] == replace(own["pgd20"], eps_255=3, step_255=0.5)
    assert list(found) == ["pgd20@3", "apgd@3"]


def test_an_attack_of_the_command_line_is_measured_with_and_not_trained_with() -> None:
    overrides = ["attack.steps=3", "attack=square", "attack.queries=7", "attack=auto_attack/standard"]
    composed = compose_measurement("quickstart", overrides)
    plain = compose("quickstart", ["attack.steps=3"])
    assert composed.config.evaluation.attacks == {"square": Square(queries=7), "auto_attack-standard": AutoAttack()}
    assert composed.config.attack == plain.config.attack
    assert composed.run_folder == plain.run_folder
    assert list(measured("attack=square", eps="1,2")) == ["square@1", "square@2"]


def test_an_inline_attack_is_still_the_training_attack() -> None:
    composed = compose_measurement("quickstart", ["attack={kind: apgd}"])
    assert composed == compose("quickstart", ["attack={kind: apgd}"])


def test_what_the_command_line_says_of_the_experiments_own_stays() -> None:
    found = compose_measurement("quickstart", ["evaluation.attacks.pgd20.steps=3"], "aa", "1").config.evaluation
    assert list(found.attacks) == ["aa@1", "pgd20@1"]
    assert found.eps_sweep_255 == []
    kept = compose_measurement("quickstart", ["evaluation.eps_sweep_255=[3]"], "aa", "1").config.evaluation
    assert kept.eps_sweep_255 == [3.0]


def test_the_resolved_file_is_the_same_measurement(tmp_path: Path) -> None:
    composed = compose_measurement("quickstart", ["seed=2"], "pgd7,auto_attack/quick", "0.5,2")
    path = tmp_path / "config.yaml"
    path.write_text(composed.resolved, encoding="utf-8")
    assert compose(path).config == composed.config
    assert composed.hash == compose("quickstart").hash
    assert composed.inputs.overrides == ("seed=2", "--attacks=pgd7,auto_attack/quick", "--eps=0.5,2")
    found = {key for key, _ in _flat(asdict(composed.config.evaluation), "evaluation")}
    assert {key for key in composed.origins if key.startswith("evaluation.")} == found


def _flat(values: dict[str, object], path: str) -> list[tuple[str, object]]:
    below = [(f"{path}.{key}", value) for key, value in values.items()]
    nested = [pair for key, value in below if isinstance(value, dict) for pair in _flat(value, key)]
    return nested + [(key, value) for key, value in below if not isinstance(value, dict)]


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_short_names_take_the_norm(norm: str) -> None:
    found = compose_measurement("quickstart", [], "apgd-t,square", "510", norm)  # type: ignore[arg-type]
    assert {each.norm for each in found.config.evaluation.attacks.values() if each.kind != "none"} == {norm}


@pytest.mark.parametrize(
    ("attacks", "eps", "norm", "part"),
    [
        ("apgd-cee", "1", "linf", "did you mean 'apgd-ce'?"),
        ("pgd", "1", "linf", "did you mean 'pgd20'?"),
        ("pgd0", "1", "linf", "there is no attack 'pgd0'"),
        ("auto_attack/standrd", "1", "linf", "did you mean 'auto_attack/standard'?"),
        ("aa,", "1", "linf", "--attacks takes a list"),
        ("aa,aa", "1", "linf", "--attacks takes a list with commas and no entry twice"),
        ("aa", "0", "linf", "--eps of aa must be > 0 and <= 255"),
        ("aa", "256", "linf", "--eps of aa must be > 0 and <= 255"),
        ("aa", "nan", "linf", "--eps of aa must be > 0"),
        ("aa", "8/255", "linf", "--eps takes numbers in 1/255"),
        ("aa", "", "linf", "--eps takes a list"),
        ("aa", None, "l2", "add --eps"),
        ("pgd20", "1", "l1", "pgd20 has the norms linf and l2"),
        ("cw", "1", "l1", "cw, which has no norm l1"),
        ("none", "1", "linf", "evaluation.attacks.none has kind none"),
    ],
)
def test_a_mistake_is_one_sentence(attacks: str, eps: str | None, norm: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_measurement("quickstart", [], attacks, eps, norm)  # type: ignore[arg-type]
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)

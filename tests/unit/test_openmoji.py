"""The benchmark's concepts, trees, renderings and captions."""

from collections import Counter

import numpy as np
import pytest

from datamodules.sources.openmoji.captions import kind_caption, name_caption
from datamodules.sources.openmoji.concepts import concepts
from datamodules.sources.openmoji.drawings import drawing
from datamodules.sources.openmoji.packing import RECIPES, Rendering, _sample
from datamodules.sources.openmoji.rendering import EASY, HARD, SIZE, between, render
from datamodules.sources.openmoji.trees import hypernyms, synsets, trees, wordnet_tree
from lightning_modules.hierarchy import Tree

EVERYTHING = concepts("id", "near_seen", "near_unseen", "far", "other")


def test_sets_are_large_enough_and_share_no_drawing_and_no_name() -> None:
    assert len(concepts("id")) >= 90
    assert len(concepts("near_seen", "near_unseen")) >= 60
    assert min(len(concepts("near_seen")), len(concepts("near_unseen"))) >= 30
    assert len(concepts("far")) >= 60
    assert len({concept.hexcode for concept in EVERYTHING}) == len(EVERYTHING)
    assert len({concept.name.lower() for concept in EVERYTHING}) == len(EVERYTHING)


def test_near_concepts_come_from_the_leaves_subgroups_and_far_ones_do_not() -> None:
    subgroups = {concept.subgroup for concept in concepts("id")}
    groups = {concept.group for concept in concepts("id")}
    assert groups == {"animal", "food", "vehicle", "tool", "musical instrument", "sport"}
    assert {concept.subgroup for concept in concepts("near_seen", "near_unseen")} <= subgroups
    assert not {concept.group for concept in concepts("far")} & groups


def test_training_reads_no_ood_concept_and_pretraining_no_unseen_one() -> None:
    for split in ("train", "val", "test"):
        assert RECIPES["open_world"][split].roles == ("id",)
    for recipe in RECIPES["pretraining"].values():
        assert "near_unseen" not in recipe.roles


def test_every_concept_has_a_drawing() -> None:
    for concept in EVERYTHING:
        assert np.asarray(drawing(concept.hexcode))[..., 3].mean() > 2, f"{concept.name} is empty"


def test_streams_of_sets_that_share_concepts_differ() -> None:
    streams: Counter[tuple[int, str]] = Counter()
    for recipe in RECIPES.values():
        for rendering in recipe.values():
            streams.update((rendering.stream, role) for role in rendering.roles)
    assert max(streams.values()) == 1


def test_trees_are_trees_over_the_leaves_in_order() -> None:
    leaves = concepts("id")
    for name, tree in trees(leaves).items():
        built = Tree.from_dict(name, tree)
        assert list(built.levels[0]) == [leaf.name for leaf in leaves]
        assert all(len(set(level)) == len(level) for level in built.levels), f"{name} repeats a name within a level"
        sizes = [len(level) for level in built.levels]
        assert sizes == sorted(sizes, reverse=True)


def test_wordnet_parents_are_hypernyms() -> None:
    leaves = concepts("id")
    table = synsets()
    tree = Tree.from_dict("wordnet", wordnet_tree(leaves))
    for leaf, concept in enumerate(leaves):
        ancestor = concept.wnid
        for level in range(1, tree.depth + 1):
            ancestor = table[ancestor].hypernym
            name = tree.levels[level][int(tree.ancestors(level)[leaf])]
            assert name.split(", a kind of ")[0] == table[ancestor].lemmas[0]


def test_every_leaf_reaches_the_root_of_wordnet() -> None:
    table = synsets()
    for concept in concepts("id"):
        node = concept.wnid
        for _ in range(30):
            node = table[node].hypernym
        assert table[node].lemmas[0] == "entity"


def test_a_rendering_is_a_function_of_its_seed() -> None:
    hexcode = concepts("id")[0].hexcode
    first, again, other = (render(hexcode, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (SIZE, SIZE, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_difficulty_runs_from_easy_to_hard() -> None:
    assert between(0.0) == EASY
    assert between(1.0) == HARD
    middle = between(0.5)
    assert EASY.noise < middle.noise < HARD.noise
    assert HARD.scale[0] < middle.scale[0] < EASY.scale[0]


def test_splits_render_different_pictures_of_one_concept() -> None:
    concept = concepts("id")[0]
    recipes = RECIPES["open_world"]
    pictures = [_sample(split, recipes[split], (0, concept, 0)).image for split in ("train", "val", "test")]
    assert len(set(pictures)) == 3


def test_captions_name_the_concept() -> None:
    concept = concepts("id")[0]
    texts = [name_caption(concept, np.random.default_rng(seed)) for seed in range(200)]
    assert all(concept.name in text for text in texts)
    told = sum(concept.subgroup in text for text in texts) / len(texts)
    assert 0.15 < told < 0.35


@pytest.mark.parametrize("recipe", ["open_world", "pretraining"])
def test_recipes_give_labels_of_their_own_concepts(recipe: str) -> None:
    for split, rendering in RECIPES[recipe].items():
        assert isinstance(rendering, Rendering)
        members = concepts(*rendering.roles)
        sample = _sample(split, rendering, (len(members) - 1, members[-1], 0))
        assert sample.label == len(members) - 1
        assert (sample.text is not None) == (recipe == "pretraining")


def test_captions_of_kinds_name_every_superclass_alone_as_often_as_the_concept() -> None:
    fox = next(concept for concept in concepts("id") if concept.name == "fox")
    texts = [kind_caption(fox, np.random.default_rng(seed)) for seed in range(600)]
    alone = [text for text in texts if "fox" not in text]
    assert 0.4 < len(alone) / len(texts) < 0.6
    kinds = {fox.subgroup, fox.group, *hypernyms(fox.wnid)}
    assert {"mammal", "canine"} <= kinds
    assert all(any(kind in text for text in alone) for kind in kinds)
    assert all(any(kind in text for kind in kinds) for text in alone)


def test_hypernyms_end_at_the_root() -> None:
    assert hypernyms("n00001740") == []
    assert hypernyms("n00001930", levels=5) == ["entity"]

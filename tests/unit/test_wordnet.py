"""WordNet: the table, ImageNet's classes in it, names looked up, and the report that becomes a file of synsets."""

from pathlib import Path

import pytest

from configs.errors import DataError
from configs.schema.hierarchy import WordNetTree
from datamodules.sources.openmoji.concepts import concepts
from lightning_modules.hierarchy.matching import match_classes
from lightning_modules.hierarchy.wordnet import hypernym_path, nouns
from lightning_modules.hierarchy.wordnet.tree import imagenet_synsets, wordnet_tree

KIT_FOX = "n02119789"
CRANES = ("n02012849", "n03126707")
LEAVES = concepts("id")


@pytest.fixture(scope="module")
def imagenet() -> list[str]:
    return imagenet_synsets().read_text("utf-8").split()


def test_every_path_ends_at_entity_and_every_hypernym_is_in_the_table() -> None:
    table = nouns()
    assert [wnid for wnid, synset in table.items() if not synset.hypernyms] == ["n00001740"]
    for wnid, synset in table.items():
        assert set(synset.hypernyms) <= table.keys()
        assert all(synset.lemmas)
        path = hypernym_path(wnid)
        assert path[-1] == "n00001740"
        assert len(set(path)) == len(path)


def test_imagenets_labels_number_the_sorted_synsets(imagenet: list[str]) -> None:
    """As torchvision and timm number the folders; tench, goldfish and great white shark come first."""
    assert imagenet == sorted(set(imagenet))
    assert len(imagenet) == 1000
    assert [nouns()[wnid].name for wnid in imagenet[:3]] == ["tench", "goldfish", "great white shark"]


def test_imagenet_cut_to_its_nearest_five(imagenet: list[str]) -> None:
    """The example of the paper, and the two properties that training needs: coarser levels, distinct names."""
    names = [f"{nouns()[wnid].name} ({wnid})" for wnid in imagenet]
    tree = wordnet_tree("wordnet", WordNetTree(synsets="imagenet-1k"), names)
    sizes = [len(level) for level in tree.levels]
    assert sizes == sorted(sizes, reverse=True)
    assert all(len(set(level)) == len(level) for level in tree.levels)
    fox = imagenet.index(KIT_FOX)
    way = [tree.levels[level][tree.ancestors(level)[fox]] for level in range(1, 6)]
    assert way == ["fox", "canine", "carnivore", "placental", "mammal"]


def test_branching_merges_superclasses_and_splits_none(imagenet: list[str]) -> None:
    every = wordnet_tree("w", WordNetTree(levels=1, branching=False, synsets="imagenet-1k"), imagenet)
    branching = wordnet_tree("w", WordNetTree(levels=1, synsets="imagenet-1k"), imagenet)
    merged = dict(zip(every.parents[0], branching.parents[0], strict=True))
    assert [merged[parent] for parent in every.parents[0]] == list(branching.parents[0])
    assert len(branching.levels[1]) < len(every.levels[1])


def test_two_classes_of_one_synset_are_siblings(tmp_path: Path) -> None:
    file = tmp_path / "synsets.txt"
    file.write_text(f"{KIT_FOX}\n{KIT_FOX}\nn02124075\n", "utf-8")
    tree = wordnet_tree("w", WordNetTree(levels=1, synsets=str(file)), ("desert fox", "swift fox", "cat"))
    assert tree.parents[0][0] == tree.parents[0][1]
    assert tree.levels[0] == ("desert fox", "swift fox", "cat")


def test_superclasses_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """A kind of the bird and a kind of the machine."""
    below = [next(w for w, s in nouns().items() if crane in s.hypernyms[:1]) for crane in CRANES]
    file = tmp_path / "synsets.txt"
    file.write_text("\n".join(below), "utf-8")
    tree = wordnet_tree("w", WordNetTree(levels=1, branching=False, synsets=str(file)), ("one", "other"))
    assert tree.levels[1] == ("crane, a kind of wading bird", "crane, a kind of lifting device")


def test_the_right_sense_is_always_among_the_candidates_and_mostly_first() -> None:
    matching = match_classes([leaf.name for leaf in LEAVES])
    assert not matching.of("missing")
    assert all(leaf.wnid in match.synsets for leaf, match in zip(LEAVES, matching.matches, strict=True))
    first = sum(match.synsets[0] == leaf.wnid for leaf, match in zip(LEAVES, matching.matches, strict=True))
    assert first / len(LEAVES) > 0.9


@pytest.mark.parametrize(
    ("name", "status", "lemma"),
    [
        ("Kit-Fox", "ambiguous", "kit fox"),
        ("great_white shark", "matched", "great white shark"),
        ("rabbits", "ambiguous", "rabbit"),
        ("strawberries", "ambiguous", "strawberry"),
    ],
)
def test_case_separators_and_plurals_do_not_count(name: str, status: str, lemma: str) -> None:
    (match,) = match_classes([name]).matches
    assert match.status == status
    assert all(lemma in nouns()[wnid].lemmas for wnid in match.synsets)


def test_a_missing_name_comes_with_what_resembles_it() -> None:
    typo, compound = match_classes(["xylofone", "construction crane"]).matches
    assert typo.status == compound.status == "missing"
    assert typo.suggestions[0] == "xylophone"
    assert "crane" in compound.suggestions


def test_the_report_that_a_person_completed_is_a_file_of_synsets(tmp_path: Path) -> None:
    names = ("dog", "construction crane", "cat")
    report = tmp_path / "report.tsv"
    report.write_text(match_classes(names).to_tsv(), "utf-8")
    source = WordNetTree(synsets=str(report))
    with pytest.raises(DataError, match="no synset yet for the class 'construction crane'"):
        wordnet_tree("w", source, names)
    report.write_text(report.read_text("utf-8").replace("?\tconstruction", f"{CRANES[1]}\tconstruction"), "utf-8")
    assert wordnet_tree("w", source, names).levels[0] == names
    with pytest.raises(DataError, match="has the class 'dog' where the data set has 'cat'"):
        wordnet_tree("w", source, names[::-1])


def test_names_that_wordnet_does_not_have() -> None:
    names = ["dog", *(f"no such thing {i}" for i in range(7))]
    with pytest.raises(
        DataError, match=r"'no such thing 0', .*'no such thing 4' and 2 more; .*hierarchy.trees.w.synsets"
    ):
        wordnet_tree("w", WordNetTree(), names)


@pytest.mark.parametrize(
    ("content", "message"),
    [("n02084071\n", "has 1 synsets for 2 classes"), ("n02084071\nn99999999\n", "'n99999999', which is no noun")],
)
def test_a_file_of_synsets_that_does_not_fit(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "synsets.txt"
    file.write_text(content, "utf-8")
    with pytest.raises(DataError, match=message):
        wordnet_tree("w", WordNetTree(synsets=str(file)), ("dog", "cat"))


def test_a_file_of_synsets_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"nowhere.txt can't be read"):
        wordnet_tree("w", WordNetTree(synsets="nowhere.txt"), ("dog",))

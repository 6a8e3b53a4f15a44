"""The verb `bank`: writes what a language model has to write, and shows what the banks of antibodies hold."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError, did_you_mean
from configs.schema.antibodies import BankConfig, LLMBank, RandomBank, TextBank
from experiments.bar import open_bar
from experiments.classes import with_classes

if TYPE_CHECKING:
    from configs.compose import Composed
    from datamodules.classification import ClassificationDataModule
    from lightning_modules.antibodies import Bank
    from lightning_modules.backbones import Backbone

EXAMPLES = 4  # of each family


def bank(composed: "Composed", name: str | None = None, dry_run: bool = False, compared: Path | None = None) -> int:
    """Writes the file of each bank of kind `llm` that has none yet, then prints, of every bank or the one called
    `name`, sizes and examples, what selection with the experiment's model keeps, and which OOD concepts it names. A
    file that is there is left alone: a person may have edited it.

    Args:
        dry_run: prints what asking would cost and what a bank holds, and stops before a model is asked or loaded.
        compared: another bank's file; prints what changed from it.

    Raises:
        ConfigError: the experiment has no such bank, or a band drops every antibody of a class.
        DataError: there is no data set, or a bank's file can't be used.
        LanguageModelError: the endpoint can't be used, or the budget is spent; answers until then are kept.
    """
    chosen = _chosen(composed.config.antibodies, name, compared)
    data = with_classes(composed)
    backbone: Backbone | None = None
    for each, source in chosen.items():
        if isinstance(source, LLMBank) and not _written(each, source, data.class_names, dry_run):
            continue
        found = _show(each, source, data, compared)
        if not dry_run and not isinstance(source, RandomBank):
            backbone = backbone or _load(composed)
            print(f"\n{_selection(found, source, data, backbone)}")
            print(f"\n{_audit(found, data)}")
    return 0


def _chosen(banks: Mapping[str, BankConfig], name: str | None, compared: Path | None) -> dict[str, BankConfig]:
    if not banks:
        raise ConfigError("the experiment has no bank: set antibodies.NAME.kind=lexicon, or another kind")
    if name is not None and name not in banks:
        raise ConfigError(f"antibodies has no bank '{name}'; {did_you_mean(name, banks)}")
    if compared is not None and name is None and len(banks) > 1:
        raise ConfigError(f"--diff compares with one bank; choose it with --bank, one of: {', '.join(banks)}")
    return {name: banks[name]} if name is not None else dict(banks)


def _written(name: str, source: LLMBank, class_names: Sequence[str], dry_run: bool) -> bool:
    """Whether the file is there; it is written where it wasn't, unless with `dry_run`."""
    from lightning_modules.antibodies import Bank, llm, write_bank
    from lightning_modules.language_model import Client

    path = Path(source.file)
    if path.exists():
        print(f"{name}: {path} is there, and left as it is; move it away to have it written again")
        return True
    client = Client(source.endpoint)
    asked = llm.questions(class_names, source)
    print(f"{name}: {client.estimate(asked)}")
    if dry_run:
        return False
    with open_bar(name, len(asked), " requests") as bar:
        antibodies, dropped = llm.ask(client, class_names, source, bar.update)
    write_bank(path, Bank(name, tuple(class_names), tuple(antibodies)))
    for reason, count in sorted(dropped.items()):
        print(f"{name}: {count:,} texts of the model are left out: {reason}")
    return True


def _show(name: str, source: BankConfig, data: "ClassificationDataModule", compared: Path | None) -> "Bank":
    """The bank, after printing what is in it."""
    from lightning_modules.antibodies import build, diff, read_bank

    found = build(source, data.class_names, name)
    print(
        f"{name} ({source.kind}): {len(found):,} antibodies of {len(data.class_names):,} classes, {found.digest[:16]}"
    )
    for family, count in found.families.items():
        print(f"  {family}: {count:,}{_examples(found, family)}")
    if found.bare and -1 not in found.owners:
        print(f"  without an antibody: {', '.join(found.bare[:EXAMPLES])}{' ...' if found.bare[EXAMPLES:] else ''}")
    if compared is not None:
        print(f"from {compared}: {diff(read_bank(compared, data.class_names, name), found)}")
    return found


def _examples(bank: "Bank", family: str) -> str:
    """Some of a family, evenly spread."""
    texts = [text for text, each in zip(bank.captions, bank.antibodies, strict=True) if each.family == family and text]
    chosen = [texts[step * len(texts) // EXAMPLES] for step in range(min(EXAMPLES, len(texts)))]
    return f", for instance {'; '.join(chosen)}" if chosen else ""


def _load(composed: "Composed") -> "Backbone":
    from lightning_modules.backbones import load_backbone

    return load_backbone(composed.config.model)


def _selection(bank: "Bank", source: TextBank, data: "ClassificationDataModule", backbone: "Backbone") -> str:
    """The report, with the model's class texts as prototypes."""
    from lightning_modules.antibodies import report
    from lightning_modules.backbones import prompt_embeddings
    from lightning_modules.immune_texts import UNIT, encoded, selected

    names, templates = data.class_names, data.templates
    prototypes = UNIT.texts(prompt_embeddings(backbone, names, templates))
    with open_bar(bank.name, len(bank), " texts") as bar:
        whole = encoded(backbone, source, bank, templates, prototypes, bar.update)
    selection = selected(whole, source, prototypes).selection
    assert selection is not None, "banks of texts are selected from"
    return report(bank, selection)


def _audit(bank: "Bank", data: "ClassificationDataModule") -> str:
    """A line for each OOD split of the data."""
    from datamodules.open_world import OpenWorldDataModule
    from lightning_modules.antibodies import overlap

    splits = data.ood_splits if isinstance(data, OpenWorldDataModule) else {}
    lines = []
    for split in (split for group in splits.values() for split in group):
        concepts = data.concepts(split)
        lines.append(f"{split}: " + (str(overlap(bank, concepts)) if concepts else "its concepts are not known"))
    return "overlap with OOD concepts\n" + ("\n".join(lines) or "the data has no OOD splits")

"""The command line: what a person may write. `experiments.verbs` has what is called."""

import argparse
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from configs.errors import ConfigError, UserError, did_you_mean
from experiments import verbs
from experiments.costs.accelerators import ACCELERATORS

SHOW_HIERARCHY = "show hierarchy"
BENCHES = ("train-step", "data", "startup", "attacks", "antibodies")
OVERRIDES = "key=value settings go after the experiment; the last one wins. See all keys with 'show EXPERIMENT'."


class Parser(argparse.ArgumentParser):
    """Wrong usage is an error like any other: one sentence."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see '{self.prog} --help'")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 0 done, 1 not as wanted, 2 a person's error, 130 interrupted, 141 where
    nobody reads on, as `head` doesn't."""
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError as error:
        return _unread(error)


def _unread(error: BrokenPipeError) -> int:
    """The exit code where the pipe is standard output; any other one is raised."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in output.poll(0)):
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the interpreter's end
    return 128 + signal.SIGPIPE


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Options and key=value settings may come in any order.

    `show hierarchy` is a verb of two words; an experiment of that name would be shown by its path.

    Raises:
        ConfigError: an unknown verb or option, a missing argument.
    """
    parser, known = _parser()
    if list(argv[:2]) == SHOW_HIERARCHY.split():
        argv = [SHOW_HIERARCHY, *argv[2:]]
    if argv and not argv[0].startswith("-") and argv[0] not in known:
        raise ConfigError(f"there is no verb '{argv[0]}'; {did_you_mean(argv[0], known)}")
    arguments, rest = parser.parse_known_args(argv)
    options = [word for word in rest if word.startswith("-")]
    if options:
        raise ConfigError(f"unknown option {options[0]} of {argv[0]}; see '{parser.prog} {argv[0]} --help'")
    if rest and not hasattr(arguments, "overrides"):
        raise ConfigError(f"unexpected argument {rest[0]} of {argv[0]}; see '{parser.prog} {argv[0]} --help'")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser() -> tuple[Parser, list[str]]:
    prog = "python -m experiments" if Path(sys.argv[0]).name == "__main__.py" else "immunoclip"
    parser = Parser(
        prog=prog,
        description="Robust and open-world CLIP: train, evaluate and compare.",
        epilog=f"A newcomer starts with: {prog} quickstart",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30),
    )
    added = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, text: str, example: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = added.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"Example: {prog} {name} {example}",
            allow_abbrev=False,
        )
        one.set_defaults(run=run)
        return one

    _add_runs(verb)
    _add_tools(verb)
    return parser, list(added.choices)


def _add_runs(verb: Callable[..., argparse.ArgumentParser]) -> None:
    train = verb("train", "Train one experiment, or resume it.", "tecoa_openmoji trainer.steps=500", verbs.train)
    evaluate = verb(
        "evaluate", "Measure a model: clean, attacked, open-world.", "tecoa_openmoji seed=1", verbs.evaluate
    )
    quickstart = verb(
        "quickstart", "The whole job in minutes: pack, measure, fine-tune, report.", "seed=1", verbs.quickstart
    )
    sweep = verb("sweep", "Train and measure many, and compare them.", "openmoji_hierarchical --jobs 2", verbs.sweep)
    for parser in (train, evaluate):
        _add_experiment(parser)
    _add_attacks(evaluate)
    _add_engine(sweep)
    for parser in (train, evaluate, quickstart, sweep):
        parser.add_argument("--dry-run", action="store_true", help="print the plan and its cost, and stop")
    for parser in (train, evaluate):
        _add_machine(parser)
    for parser in (quickstart, sweep):
        _add_overrides(parser)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gpu", metavar="NAME", help=f"of --dry-run's times: {', '.join(ACCELERATORS)} (default: h100)"
    )
    parser.add_argument("--mfu", metavar="SHARE", type=float, help="of the GPU's peak rate, as assumed (default: 0.35)")


def _add_attacks(evaluate: argparse.ArgumentParser) -> None:
    evaluate.epilog = (
        f"{evaluate.epilog} --attacks pgd20,apgd-ce,aa --eps 1,2,4. Without --attacks the experiment's own "
        "evaluation.attacks count, unless attack=FILE attack.KEY=VALUE names another."
    )
    evaluate.add_argument(
        "--attacks",
        metavar="NAMES",
        help="measure under these alone, with commas: pgdN, apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square, cw, aa, "
        "aa-plus, aa-rand (AutoAttack), or files below configs/attack, as in auto_attack/quick",
    )
    evaluate.add_argument(
        "--eps", metavar="RADII", help="within each of these radii, in 1/255 with commas (default: the experiment's)"
    )
    evaluate.add_argument("--norm", choices=("linf", "l2", "l1"), default="linf", help="of --attacks (default: linf)")
    evaluate.add_argument("--stage", choices=("before", "after"), help="measure this alone (default: both)")


def _add_engine(sweep: argparse.ArgumentParser) -> None:
    sweep.add_argument("file", metavar="SWEEP", help="a file of configs/sweep by name, or a YAML file of your own")
    sweep.epilog = (
        f"{sweep.epilog} The same command goes on with a sweep that was stopped. --engine submitit queues jobs as the "
        "file's section slurm or slurm.KEY=VALUE says: partition, account, qos, constraint, minutes, cpus_per_task, "
        "mem_gb, setup, kind (slurm, or local: this machine)."
    )
    sweep.add_argument(
        "--engine",
        metavar="NAME",
        default="local",
        help="what runs the trials: local, processes of this machine (the default); submitit, an array of SLURM jobs; "
        "wandb, agents that a W&B server tells what to run; optuna, a search (method: bayes)",
    )
    sweep.add_argument("--jobs", metavar="N", type=int, default=1, help="trials at a time (default: 1)")
    sweep.add_argument(
        "--trial", action="store_true", help="run the one trial that key=value names, as an agent of W&B asks for it"
    )


def _add_tools(verb: Callable[..., argparse.ArgumentParser]) -> None:
    pack = verb(
        "pack", "Make the data set that an experiment's data.pack describes.", "quickstart --verify", verbs.pack
    )
    _add_experiment(pack)
    pack.add_argument("--verify", action="store_true", help="check the digests of the packed data, change nothing")
    written = verb(
        "write-hierarchy",
        "Ask a language model for superclasses, in a file to review.",
        "hierarchical5_vit_b32_imagenet --dry-run",
        verbs.write_hierarchy,
    )
    _add_experiment(written)
    written.add_argument("--tree", metavar="NAME", help="this tree of kind llm alone (default: all)")
    written.add_argument("--dry-run", action="store_true", help="print requests, tokens and price, and stop")
    _add_bank(verb)
    show = verb(
        "show", "Print a configuration, and where it comes from.", "quickstart attack.steps=2 --origin", verbs.show
    )
    _add_experiment(show, nargs="?")
    show.add_argument("--origin", action="store_true", help="say beside each key which file set it")
    show.add_argument("--list", action="store_true", dest="listing", help="list the experiments that are shipped")
    _add_trees(
        verb(SHOW_HIERARCHY, "Print and draw the class trees.", "quickstart --draw trees.svg", verbs.show_hierarchy)
    )
    _add_models(verb)
    report = verb(
        "report", "Write a page: of a run again, or of many runs side by side.", "outputs/sweeps/radii", verbs.report
    )
    report.add_argument(
        "sources",
        metavar="OUTPUTS",
        nargs="+",
        help="a run's folder; or sweeps, folders above runs, globs, wandb://entity/project?group=NAME",
    )
    report.add_argument(
        "--to", metavar="FILE", type=Path, help="the page of many runs (default: report.html in the first folder)"
    )
    bench = verb(
        "bench", "Measure speed, as ratios within one run.", "train-step --check --json bench.json", verbs.bench
    )
    bench.add_argument("name", metavar="NAME", choices=BENCHES, help=" | ".join(BENCHES))
    bench.add_argument("--json", metavar="FILE", type=Path, help="write the figures to FILE")
    bench.add_argument("--check", action="store_true", help="exit 1 where a target is missed")


def _add_models(verb: Callable[..., argparse.ArgumentParser]) -> None:
    export = verb(
        "export",
        "Write a trained model as a folder, as a program, or to the Hugging Face hub.",
        "outputs/quickstart/1a2b3c4d-s0 --to model.pt2",
        verbs.export,
    )
    export.add_argument("source", metavar="MODEL", type=Path, help="a run's folder, or a model's")
    export.add_argument(
        "--to",
        metavar="TARGET",
        required=True,
        help="a folder that open_clip opens, with a card of what was measured; FILE.pt2, a program of torch.export "
        "with its reject option, and FILE.json, which says what it answers; hf-hub:ORGANISATION/NAME, as a private "
        "repository, with the token of HF_TOKEN or `hf auth login`",
    )
    predict = verb(
        "predict",
        "Classify pictures: class, superclasses, confidence (calibrated as its card says), and whether it is known.",
        "outputs/quickstart/1a2b3c4d-s0 cat.png 'photos/*.jpg'",
        verbs.predict,
    )
    predict.add_argument("model", metavar="MODEL", type=Path, help="a run's folder, a model's, or a program (.pt2)")
    predict.add_argument("images", metavar="IMAGES", nargs="+", help="picture files, folders of them, globs")
    predict.add_argument("--classes", metavar="FILE", type=Path, help="class names, one a line (default: the model's)")
    predict.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object a line")


def _add_bank(verb: Callable[..., argparse.ArgumentParser]) -> None:
    bank = verb(
        "bank",
        "Show the banks of antibodies, and have a language model write those that it should.",
        "quickstart --bank lexicon",
        verbs.bank,
    )
    _add_experiment(bank)
    bank.add_argument("--bank", metavar="NAME", help="this bank alone (default: all)")
    bank.add_argument("--dry-run", action="store_true", help="print what is there, requests and price, and stop")
    bank.add_argument("--diff", metavar="FILE", type=Path, help="print what changed from another bank, .jsonl")


def _add_trees(trees: argparse.ArgumentParser) -> None:
    _add_experiment(trees)
    trees.add_argument("--draw", metavar="FILE", type=Path, help="draw them on Poincare discs: .svg or .png")
    trees.add_argument(
        "--matching", metavar="FILE", type=Path, help="write the WordNet synset that each class name stands for, .tsv"
    )


def _add_experiment(parser: argparse.ArgumentParser, **extra: Any) -> None:
    text = "a shipped experiment (see 'show --list') or a YAML file"
    parser.add_argument("experiment", metavar="EXPERIMENT", help=text, **extra)
    _add_overrides(parser)


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", metavar="key=value", nargs="*", default=[], help=OVERRIDES)

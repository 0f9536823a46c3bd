"""What the documentation says to type works: python blocks run, and so does every advrl command, with few steps.

A page is read from top to bottom in an empty folder, so that a run that it trains is there for what comes after. A
block with a title is a file of that name. Blocks of one page share their names, as in one session.
"""

import re
import runpy
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from advrl import cli
from advrl.agents import evaluation
from advrl.recipes import AdversarialConfig, Digits, Grid, Images, Ring, run
from advrl.recipes.config import flag

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w+)(?: ([^\n]*))?\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
FEW = ["--steps", "40", "--log-every", "20", "--picture-every", "40", "--checkpoint-every", "40", "--quiet"]
FEW_ORACLE = ["--length", "5", "--rollouts", "2", "--batch-size", "32", "--width", "16"]
FEW_OF = {  # of studies, by name
    "agents": ["--seconds", "0.02", "--seeds", "2"],
    "semisupervised": ["--seeds", "2", "--steps", "4"],
    "dynamics": ["--tasks", "ring", "--dynamics", "lookahead,unrolled-10", "--steps", "8", "--looks", "8", "--seeds",
                 "1", "--batch-size", "8"],
    "oracle": ["--seeds", "1", "--likelihood-steps", "8", "--steps", "2", "--batch-size", "16", "--temperatures",
               "0.8,1.2", "--samples", "200", "--vocab", "6", "--length", "4", "--sequences", "64", "--width", "8"],
    "text": ["--seeds", "1", "--likelihood-steps", "8", "--steps", "2", "--batch-size", "8", "--temperatures",
             "0.8,1.2", "--samples", "20", "--width", "8"],
    "modes": ["--tasks", "ring", "--seeds", "1", "--steps", "4"],
}  # fmt: skip
OTHERS = {".", "cd", "git", "make", "mkdocs", "pip", "pytest", "python", "tensorboard"}  # programs that are not run


def blocks(text: str) -> list[tuple[str, str, str]]:
    """(language, what stands behind it, code) of every fenced block."""
    return [(language, about, code) for _, language, about, code in FENCE.findall(text)]


def commands(code: str) -> list[list[str]]:
    """The words of every command in a block for the shell that is advrl's.

    Raises:
        ValueError: for a program that is neither advrl nor one that the documentation may name.
    """
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word.strip("&;|"):
                words.append(word)
                continue
            if words[:3] == ["python", "-m", "advrl"]:
                words = ["advrl", *words[3:]]
            if words[:1] == ["torchrun"] and "-m" in words:  # here with one rank
                words = words[words.index("-m") + 1 :]
            if words and words[0] == "advrl":
                found.append(words)
            elif words and words[0] not in OTHERS:
                raise ValueError(f"what is {words[0]!r}, in {line!r}?")
            words = []
    return found


def shortened(words: list[str]) -> list[str]:
    """The arguments of an advrl command, with few steps and at most two seeds if it trains."""
    arguments = words[1:]
    if arguments[:1] == ["learn"] and "--help" not in arguments:
        return [*arguments, "--agents", "55", "--episodes", "8", "--max-steps", "300"]  # the last word counts
    if arguments[:1] == ["bench"] and len(arguments) > 1 and "--help" not in arguments:
        return [*arguments, *FEW_OF.get(arguments[1], [])]
    if arguments[:1] != ["train"] or "--help" in arguments or len(arguments) < 2:
        return arguments
    if "--seeds" in arguments:
        arguments[arguments.index("--seeds") + 1] = "2"
    for option in ("--steps", "--pretrain", "--warmup"):
        if option in arguments:
            at = arguments.index(option)
            del arguments[at : at + 2]
    return arguments + FEW + FEW_ORACLE * (arguments[1] == "oracle")


def run_page(text: str, name: str) -> None:
    """Do what a page says, here."""
    session = ModuleType(f"page_{re.sub(r'[^a-z]', '_', name.lower())}")
    sys.modules[session.__name__] = session  # where a dataclass looks up its annotations
    try:
        for language, about, code in blocks(text):
            title = re.search(r'title="([^"]+)"', about)
            if title:
                Path(title[1]).write_text(code, encoding="utf-8")
            if language == "python" and title:
                runpy.run_path(title[1])
            elif language == "python":
                line = text[: text.index(code)].count("\n")  # so that a traceback names the page's own line
                few = re.sub(r"\bsteps=\d+", "steps=40", code)
                exec(compile("\n" * line + few, name, "exec"), vars(session))
            elif language in ("sh", "bash", "shell", "console"):
                for words in commands(code):
                    assert cli.main(shortened(words)) == 0, shlex.join(words)
    finally:
        del sys.modules[session.__name__]


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """An empty folder to work in, a judge who looks at less, and no plots at the end of a run (tested elsewhere)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "SHARES_FROM", 500)
    monkeypatch.setattr(evaluation, "FAST_FROM", 100)
    monkeypatch.setattr(evaluation.Evaluator.__init__, "__defaults__", ("cpu", 0, 20))  # the classifier's steps last
    monkeypatch.setattr(evaluation.Evaluator.evaluate, "__defaults__", (1,))
    monkeypatch.setattr(run, "progress_plot", lambda folder: None)
    monkeypatch.setattr(run, "save_report_plot", lambda report, folder: None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_does_what_it_says(page, quick):
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(blocks(text)), "a block has no language, or no end"
    run_page(text, page.relative_to(ROOT).as_posix())


def section(name: str) -> str:
    """What docs/recipes.md says under the heading ``name``."""
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    return next(part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(f"{name}\n"))


def defaults(config: AdversarialConfig) -> dict[str, object]:
    """Flags and their defaults, an empty string where there is none."""
    told = {flag(field.name): getattr(config, field.name) for field in fields(config)}
    return {name: "" if value is None or value is False else value for name, value in told.items()}


@pytest.mark.parametrize("config", [Digits(), Images()], ids=lambda config: config.name)
def test_every_option_has_its_row_with_its_default(config):
    """The digits' table has all options, that of the images those in which they differ from what all share."""
    rows = dict(re.findall(r"^\| `(--[a-z0-9-]+)` \| (?:`([^`]+)`)? ?\|", section(config.name), re.MULTILINE))
    shared = AdversarialConfig()
    differ = {
        flag(f.name) for f in fields(config) if getattr(config, f.name) != getattr(shared, f.name, "no such option")
    }
    told = {name: value for name, value in defaults(config).items() if config.name == "digits" or name in differ}
    assert {name: type(told.get(name, ""))(value) for name, value in rows.items()} == told


def test_ring_and_grid_have_rows_where_they_differ_from_digits():
    row = r"^\| `(--[a-z0-9-]+)` \| (?:`([^`]+)`)? ?\| (?:`([^`]+)`)? ?\|"
    rows = {name: values for name, *values in re.findall(row, section("ring and grid"), re.MULTILINE)}
    for place, config in enumerate((Ring(), Grid())):
        usual, told = defaults(Digits()), defaults(config)
        expected = {name: value for name, value in told.items() if name not in usual or usual[name] != value}
        given = {name: values[place] for name, values in rows.items() if values[place]}
        assert {name: type(expected.get(name, ""))(value) for name, value in given.items()} == expected


def test_the_readme_s_example_is_the_file_s():
    code = next(code for language, _, code in blocks(PAGES[0].read_text(encoding="utf-8")) if language == "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    files = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py")}
    assert files["coins.py"].partition("\n\n")[2] == code


LESSONS = sorted({path.name for path in (ROOT / "examples").glob("*.py")} - {"coins.py"})  # that one is the README's


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_runs(name, quick, capsys):
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert capsys.readouterr().out


def test_the_readme_trains_first():
    code = next(code for language, _, code in blocks(PAGES[0].read_text(encoding="utf-8")) if language == "sh")
    assert commands(code)[0] == ["advrl", "train", "digits"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```python\nassert 1 == 2\n```", AssertionError),
        ("```python\nx = 1\n```\n\nand\n\n```python\nassert x == 2\n```", AssertionError),
        ("```python title=\"it.py\"\nraise KeyError\n```", KeyError),
        ("```sh\npip install advrl && advrl sample runs/none-1\n```", AssertionError),
        ("```sh\nadvrl train digits --no-such-option\n```", AssertionError),
        ("```sh\nadrvl train digits\n```", ValueError),
    ],
)  # fmt: skip
def test_a_wrong_page_fails(text, error, quick):
    with pytest.raises(error):
        run_page(text, "wrong.md")


def test_commands_are_read_as_a_shell_would():
    code = (
        "pip install -e '.[x]' && advrl train digits \\\n  --steps 3  # two\npython -m advrl plot 'a b' && git status\n"
    )
    assert commands(code) == [["advrl", "train", "digits", "--steps", "3"], ["advrl", "plot", "a b"]]
    assert shortened(["advrl", "train", "digits", "--steps", "9", "--seeds", "5"]) == [
        "train", "digits", "--seeds", "2", *FEW]  # fmt: skip
    assert shortened(["advrl", "train", "--help"]) == ["train", "--help"]

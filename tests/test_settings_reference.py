"""Every setting is documented, and docs/reference/settings.md is what the models say."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tequipy_api.settings import ApiSettings
from tequipy_platform.settings import AppSettings, variable_of
from tequipy_platform.settings.reference import Setting, settings_of
from tequipy_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[1]
APPS: list[type[AppSettings]] = [ApiSettings, WorkerSettings]
NUMBER = re.compile(r"^(?:integer|number)\b")
UNIT = re.compile(
    r"\b(seconds?|bytes|MiB|share|cost|port|(the|maximum|minimum) number of|how (many|often))\b|^Connections\b",
    re.IGNORECASE,
)
BOUND = re.compile(r"\b(?:at least|at most|greater than|less than)\b")


def each_setting() -> Iterator[tuple[str, Setting]]:
    """Yield the variable of each setting of both apps, with what the models say about it."""
    for cls in APPS:
        yield from ((variable_of(cls, setting.path), setting) for setting in settings_of(cls))


def test_every_setting_says_what_it_means() -> None:
    """Each field has a docstring of at least three words that ends with a full stop."""
    found = list(each_setting())
    assert len(found) > 150
    poor = {name for name, each in found if len(each.meaning.split()) < 3 or not each.meaning.endswith(".")}
    assert poor == set()


def test_every_number_has_a_unit_and_a_bound() -> None:
    """The docstring of a number says what is counted or measured, and the type or the docstring has a bound."""
    numbers = {name: each for name, each in each_setting() if NUMBER.match(each.type)}
    assert len(numbers) > 50
    assert [name for name, each in numbers.items() if not UNIT.search(each.meaning)] == []
    assert [name for name, each in numbers.items() if not BOUND.search(f"{each.type} {each.meaning}")] == []


def test_every_duration_has_both_bounds() -> None:
    """A duration is in seconds, and cannot be so long that dates overflow."""
    durations = {name: each.type for name, each in each_setting() if each.type.startswith("seconds")}
    assert len(durations) > 10
    assert [name for name, text in durations.items() if not re.search("at least .* at most", text)] == []


def test_no_default_shows_a_secret() -> None:
    """A built-in secret is named as such, and never printed."""
    secrets = [each for _, each in each_setting() if "secret text" in each.type]
    assert len(secrets) > 10
    assert {each.default for each in secrets} == {"required", "unset", "built in, for `local` and `test` alone"}


def test_the_page_is_what_the_models_say() -> None:
    """`.ci/reference --check` finds no difference; `make reference` writes the page anew."""
    result = subprocess.run(
        [sys.executable, ".ci/reference", "--check"], capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", ""), "run `make reference`"


def test_every_variable_that_a_page_names_is_a_setting() -> None:
    """Each variable in the documentation is a setting or a section; decisions and the changelog may name old ones.

    So may the pages those that a start refuses with their new name.
    """
    known = {name: each.type for name, each in each_setting()}
    renamed = tuple(variable_of(cls, [old]) for cls in APPS for old in cls.renamed)
    mappings = tuple(f"{name}__" for name, kind in known.items() if kind.startswith("JSON object"))
    patterns = (".env.example", "*.md", "*/README.md", "*/*/README.md", "docs/*.md", "docs/how-to/*.md")
    pages = {page for pattern in patterns for page in ROOT.glob(pattern)} - {ROOT / "CHANGELOG.md"}
    for page in sorted(pages):
        text = page.read_text(encoding="utf-8")
        named = {name.removesuffix("__FILE") for name in re.findall(r"TEQUIPY_(?!DEV_)[A-Z0-9]+(?:_+[A-Z0-9]+)*", text)}
        unknown = {name for name in named - known.keys() if not name.startswith((*mappings, *renamed))}
        assert {name for name in unknown if not any(each.startswith(f"{name}__") for each in known)} == set(), page

"""The decisions of docs/adr keep their shape, and what they and the other pages of docs/ name is there."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDEX = DOCS / "adr/README.md"
ADRS = {path.name[:4]: path for path in sorted(DOCS.glob("adr/[0-9]*.md"))}
SECTIONS = ["Context", "Decision", "Consequences", "Alternatives", "Enforced by"]
GUARD = re.compile(r"- (?P<kind>test|contract|ruff|comes with [^`]+) (?P<names>`[^`]+`(?:, `[^`]+`)*): \S.*")


def guards(number: str) -> list[tuple[str, str]]:
    """Return kind and name of each guard of a decision; every line must be one that a reader and we understand."""
    _, _, text = ADRS[number].read_text().partition("## Enforced by\n")
    found = []
    for line in text.strip().splitlines():
        match = GUARD.fullmatch(line)
        assert match, f"{number}: begin with test, contract, ruff or comes with, then the name: {line}"
        kind = "coming" if match["kind"].startswith("comes") else match["kind"]
        found += [(kind, name) for name in re.findall("`([^`]+)`", match["names"])]
    return found


def is_there(reference: str) -> bool:
    """Tell whether `path` or `path::function` exists."""
    path, _, function = reference.partition("::")
    if not function or not (ROOT / path).is_file():
        return (ROOT / path).is_file()
    nodes = ast.parse((ROOT / path).read_text()).body
    return function in {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("number", ADRS)
def test_a_decision_has_its_shape(number: str) -> None:
    """Title, status, date, the five sections in order and what would make us think again, on one page."""
    text = ADRS[number].read_text()
    title, _, rest = text.partition("\n\n")
    assert title.startswith(f"# {number}. ")
    assert re.match(r"- Status: (accepted|superseded by \d{4})\n- Date: \d{4}-\d\d-\d\d\n\n", rest)
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == SECTIONS
    assert text.count("**Revisit when** ") == 1
    prose, _, _ = text.partition("## Enforced by")
    assert 250 <= len(prose.split()) <= 400


def test_the_index_lists_every_decision_once() -> None:
    """Each decision stands in the index by number, file and title, and the numbers have no gap."""
    assert list(ADRS) == [f"{number:04}" for number in range(1, len(ADRS) + 1)]
    titles = [path.read_text().partition("\n")[0].removeprefix(f"# {number}. ") for number, path in ADRS.items()]
    rows = re.findall(r"^\| \[(\d{4})\]\((.+?)\) \| (.+?) \|", INDEX.read_text(), flags=re.MULTILINE)
    assert rows == [(number, path.name, title) for (number, path), title in zip(ADRS.items(), titles, strict=True)]


@pytest.mark.parametrize("number", ADRS)
def test_what_a_decision_cites_exists(number: str) -> None:
    """Tests, import contracts and ruff bans that are named as standing do stand; what is still to come does not yet."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    contracts = {contract["id"] for contract in tools["importlinter"]["contracts"]}
    bans = set(tools["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"])
    cited = guards(number)
    assert cited
    for kind, name in cited:
        match kind:
            case "contract":
                assert name in contracts
            case "ruff":
                assert name in bans
            case "test":
                assert is_there(name)
            case _:
                assert not is_there(name), f"{name} has arrived: cite it as a test, and strike it from the index"


def test_the_index_lists_what_is_still_to_come() -> None:
    """The index's list of promised guards is that of the pages, so none is added or dropped unseen."""
    _, _, text = INDEX.read_text().partition("## Still to come\n")
    listed = [
        (name, number)
        for name, numbers in re.findall(r"^- `(.+?)`: (.+)$", text, flags=re.MULTILINE)
        for number in numbers.split(", ")
    ]
    promised = [(name, number) for number in ADRS for kind, name in guards(number) if kind == "coming"]
    assert listed == sorted(promised)


@pytest.mark.parametrize("page", sorted(DOCS.glob("**/*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    """A relative link in docs/ leads to a file or folder that is there."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize(
    "page", sorted(set(DOCS.glob("**/*.md")) - set(ADRS.values()) - {INDEX}), ids=lambda page: page.name
)
def test_what_a_page_cites_exists(page: Path) -> None:
    """Each file, and each test in it, that a page of docs/ names is there."""
    cited = re.findall(r"`([\w/.-]+\.py(?:::\w+)?)`", page.read_text())
    assert [name for name in cited if not is_there(name)] == []


def test_reliability_shows_everything_that_it_says() -> None:
    """Each row of a table of faults names the test that shows it."""
    rows = [row for row in (DOCS / "reliability.md").read_text().splitlines() if row.startswith("| ")]
    faults = [row for row in rows if not row.startswith("| fault |")]
    assert faults
    assert [row for row in faults if "::test_" not in row.rpartition(" | ")[2]] == []


def test_what_operators_are_told_to_look_for_is_in_the_code() -> None:
    """Each log event, metric, setting and code that the page of faults names occurs in the sources."""
    sources = "".join(path.read_text() for path in ROOT.glob("*/*/src/**/*.py"))
    named = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)(?:\{[^`]*\})?`", (DOCS / "reliability.md").read_text()))
    assert named
    assert {name for name in named if name.removesuffix("_total") not in sources} == set()

"""Decision records have the required form, and the files, tests and links in docs/ exist."""

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
    """Return kind and name of each check that enforces a decision; every line must match `GUARD`."""
    _, _, text = ADRS[number].read_text().partition("## Enforced by\n")
    found = []
    for line in text.strip().splitlines():
        match = GUARD.fullmatch(line)
        assert match, f"{number}: begin with test, contract, ruff or comes with, then the name: {line}"
        kind = "coming" if match["kind"].startswith("comes") else match["kind"]
        found += [(kind, name) for name in re.findall("`([^`]+)`", match["names"])]
    return found


def exists(reference: str) -> bool:
    """Return whether `path`, `path::function`, `path::Class` or `path::Class.method` exists."""
    path, _, name = reference.partition("::")
    if not name or not (ROOT / path).is_file():
        return (ROOT / path).is_file()
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    nodes: list[ast.stmt] = ast.parse((ROOT / path).read_text()).body
    for step in name.split("."):
        found = next((node for node in nodes if isinstance(node, definitions) and node.name == step), None)
        if found is None:
            return False
        nodes = found.body
    return True


@pytest.mark.parametrize("number", ADRS)
def test_a_decision_has_the_required_form(number: str) -> None:
    """A decision has title, status, date, the five sections in order, and one condition to revisit it."""
    text = ADRS[number].read_text()
    title, _, rest = text.partition("\n\n")
    assert title.startswith(f"# {number}. ")
    assert re.match(r"- Status: (accepted|superseded by \d{4})\n- Date: \d{4}-\d\d-\d\d\n\n", rest)
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == SECTIONS
    assert text.count("**Revisit when** ") == 1


def test_the_index_lists_every_decision_once() -> None:
    """The index lists each decision by number, file and title, and the numbers have no gap."""
    assert len(ADRS) == len(list(DOCS.glob("adr/[0-9]*.md"))), "two decisions have the same number"
    assert list(ADRS) == [f"{number:04}" for number in range(1, len(ADRS) + 1)]
    titles = [path.read_text().partition("\n")[0].removeprefix(f"# {number}. ") for number, path in ADRS.items()]
    rows = re.findall(r"^\| \[(\d{4})\]\((.+?)\) \| (.+?) \|", INDEX.read_text(), flags=re.MULTILINE)
    assert rows == [(number, path.name, title) for (number, path), title in zip(ADRS.items(), titles, strict=True)]


@pytest.mark.parametrize("number", ADRS)
def test_the_checks_of_a_decision_exist(number: str) -> None:
    """The named tests, import contracts and ruff bans exist; those that are still to come do not."""
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
                assert exists(name)
            case _:
                assert not exists(name), f"{name} exists now: cite it as a test, and remove it from the index"


@pytest.mark.parametrize("number", ADRS)
def test_the_tests_that_a_decision_cites_exist(number: str) -> None:
    """Each test that a decision names in any of its sections exists."""
    before, _, _ = ADRS[number].read_text().partition("## Enforced by\n")  # which is tested above
    assert [name for name in re.findall(r"`([\w/.-]+\.py::[\w.]+)`", before) if not exists(name)] == []


def test_the_index_lists_what_is_still_to_come() -> None:
    """The index lists exactly the checks that decisions announce as still to come."""
    _, _, text = INDEX.read_text().partition("## Still to come\n")
    listed = [
        (name, number)
        for name, numbers in re.findall(r"^- `(.+?)`: (.+)$", text, flags=re.MULTILINE)
        for number in numbers.split(", ")
    ]
    promised = [(name, number) for number in ADRS for kind, name in guards(number) if kind == "coming"]
    assert listed == sorted(promised)


@pytest.mark.parametrize("page", sorted(DOCS.glob("**/*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_links_between_documents_are_valid(page: Path) -> None:
    """Each relative link in docs/ leads to an existing file or folder; `make docs` checks those to what it makes."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    targets = [target for target in links if "reference/generated/" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


# A tutorial names files of the package that the reader makes; tests/test_new_package.py of the devstack reads them.
@pytest.mark.parametrize(
    "page",
    sorted(set(DOCS.glob("**/*.md")) - set(DOCS.glob("tutorial/*")) - set(ADRS.values()) - {INDEX}),
    ids=lambda page: page.name,
)
def test_the_files_and_tests_of_a_page_exist(page: Path) -> None:
    """Each Python file and each test that a page of docs/ names exists."""
    cited = re.findall(r"`([\w/.-]+\.py(?:::[\w.]+)?)`", page.read_text())
    assert [name for name in cited if not exists(name)] == []


def test_each_fault_of_the_reliability_page_names_a_test() -> None:
    """Each row of a table of faults names the test that shows it."""
    rows = [row for row in (DOCS / "reliability.md").read_text().splitlines() if row.startswith("| ")]
    faults = [row for row in rows if not row.startswith("| fault |")]
    assert faults
    assert [row for row in faults if "::test_" not in row.rpartition(" | ")[2]] == []


def test_log_events_and_metrics_of_the_reliability_page_are_in_the_code() -> None:
    """Each log event, metric, setting and error code that the page names occurs in the sources."""
    sources = "".join(path.read_text() for path in ROOT.glob("*/*/src/**/*.py"))
    named = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)(?:\{[^`]*\})?`", (DOCS / "reliability.md").read_text()))
    assert named
    assert {name for name in named if name.removesuffix("_total") not in sources} == set()

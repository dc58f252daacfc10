"""The site of the documentation, as `make docs` builds it: complete, and without files from elsewhere."""

import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from .public_modules import PACKAGES, ROOT, public_modules

MAKE = shutil.which("make") or "make"
ASSETS = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src", "video": "src"}

pytestmark = [pytest.mark.prove, pytest.mark.quick, pytest.mark.timeout(900)]


class Page(HTMLParser):
    """The addresses of what a page loads, and the ids of its elements."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        loaded = values.get(ASSETS.get(tag, ""))
        if loaded and values.get("rel") not in {"canonical", "next", "prev", "index", "search"}:
            self.loads.append(loaded)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site, with warnings as errors, into another folder."""
    folder = tmp_path_factory.mktemp("dist")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        [MAKE, "docs", f"DIST={folder}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=880,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def pages(site: Path) -> Iterator[tuple[str, Page]]:
    found = sorted(path for path in site.rglob("*.html") if "_downloads" not in path.parts)  # copies of linked files
    assert len(found) > 100
    for path in found:
        yield path.relative_to(site).as_posix(), Page(path)


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    """Scripts, style sheets, images and fonts are files of the site, which exist."""
    for name, page in pages(site):
        for address in page.loads:
            if address.startswith("data:"):
                continue
            assert not re.match(r"[a-z]+:|//", address), (name, address)
            assert ((site / name).parent / address.partition("?")[0].partition("#")[0]).exists(), (name, address)
    for style in site.rglob("*.css"):
        addresses = re.findall(r"url\(\s*['\"]?([^'\")]+)", style.read_text(encoding="utf-8"))
        assert [each for each in addresses if re.match(r"(?!data:)[a-z]+:|//", each)] == [], style


def test_the_reference_has_every_public_name(site: Path) -> None:
    """Each name that a public module exports is described on its page, or there is a link to where it is."""
    for module in (module for package in PACKAGES for module in public_modules(package)):
        path = site / f"docs/reference/generated/{module}.html"
        ids, text = Page(path).ids, path.read_text(encoding="utf-8")
        for name in importlib.import_module(module).__all__:
            assert f"{module}.{name}" in ids or f">{name}</span>" in text, (module, name)


def test_pages_are_searchable_without_a_server(site: Path) -> None:
    """The index of the search is a script, which a page loads from a folder too, and knows pages and public names."""
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert index.startswith("Search.setIndex(")
    for name in ("docs/how-to/idempotency", "packages/auth/README", "CachePolicy", "TaskRuntime"):
        assert name in index, name


def test_the_first_page_leads_to_the_site(site: Path) -> None:
    """`index.html` in the root of the site leads to its first page."""
    target = re.findall(r'href="([^"]+)"', (site / "index.html").read_text(encoding="utf-8"))[-1]
    assert (site / target).is_file()

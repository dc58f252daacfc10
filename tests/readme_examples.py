"""The complete examples in the READMEs of the packages: Python that runs as it stands, and what it shows."""

import re
from dataclasses import dataclass

from .public_modules import PACKAGES, ROOT

_COMPLETE = re.compile(r"(import|from) .*\n(.*\n)*(async def main|def create|app = )")
_BLOCK = re.compile(r"```python\n(.*?)```(.*?)(?=```python|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A block of Python; an app is asked by the lines with `curl` in the block `console` that follows it."""

    name: str
    package: str
    code: str
    requests: list[tuple[str, str]]
    """Path and expected body of each call of `curl`; empty for a script."""
    variables: dict[str, str]
    """The environment variables of the lines with `export`."""
    printed: list[str]
    """The lines that a script prints, from its comments (`print(…)  # → …`) or the sentence "It prints …"."""


def examples() -> list[Example]:
    """Return the examples of all packages that import all that they use; each package has at least one."""
    return [example for package in PACKAGES for example in examples_of(package)]


def examples_of(package: str) -> list[Example]:
    """Return the complete examples of a package."""
    found: list[Example] = []
    for code, text in _BLOCK.findall((ROOT / f"packages/{package}/README.md").read_text(encoding="utf-8")):
        if _COMPLETE.match(code):
            console = "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL))
            requests = re.findall(r"^\$ curl localhost:8000(\S*)\n(.*)$", console, re.MULTILINE)
            exports = " ".join(re.findall(r"^\$ export (.*)$", console, re.MULTILINE)).split()
            variables = {name: value for name, _, value in (each.partition("=") for each in exports)}
            printed = re.findall(r"print\(.*# → (.*)$", code, re.MULTILINE)
            printed += re.findall(r"^It prints `(.*?)`\.", text, re.MULTILINE)
            found.append(Example(f"{package}_{len(found)}", package, code, requests, variables, printed))
    assert found, package
    return found

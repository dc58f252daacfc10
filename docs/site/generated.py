"""Pages that are written while the site is built: the HTTP contract, and the public modules of each package."""

import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import indent
from typing import Any, Final

from sphinx.application import Sphinx
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.typing import stringify_annotation

from tequipy_platform import JSON

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "docs/reference/generated"

_ERRORS: Final = "45"
"""The first characters of the statuses of errors."""
_LONGEST_VALUE: Final = 80
"""Values of constants whose `repr` is longer are not shown."""
_JSON: Final = stringify_annotation(JSON, "smart")


def write_pages() -> None:
    """Write all generated pages, and remove those of modules that do not exist any more."""
    modules = list(_modules())
    exports = {module: importlib.import_module(module) for _, module in modules}
    pages = {f"{module}.rst": _module_page(module, exports) for _, module in modules}
    pages["http.md"] = _contract_page(json.loads((ROOT / "apps/api/openapi.json").read_text(encoding="utf-8")))
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.iterdir():
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # Sphinx reads changed pages alone
            path.write_text(text, encoding="utf-8")


def add_subpages(_app: Sphinx, page: str, source: list[str]) -> None:
    """Add the subpages of a page to the navigation: the modules of a package, and all decisions."""
    if not page.endswith("/README"):
        return
    subpages = [f"/docs/reference/generated/{module}" for folder, module in _modules() if page == f"{folder}/README"]
    if page == "docs/adr/README":
        subpages = sorted(path.stem for path in ROOT.glob("docs/adr/[0-9]*.md"))
    if subpages:
        source[0] += "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(subpages) + "\n```\n"


def shorten_signature(*arguments: object) -> tuple[str | None, str | None]:
    """Write the recursive type `JSON` by its name; `arguments` are those of `autodoc-process-signature`."""
    *_, signature, returns = arguments
    return _shortened(signature), _shortened(returns)


def _shortened(text: object) -> str | None:
    return text.replace(_JSON, "JSON") if isinstance(text, str) else None


def _modules() -> Iterator[tuple[str, str]]:
    """Yield the folder of each package with each of the public modules in the table of its README."""
    for readme in sorted(ROOT.glob("packages/*/README.md")):
        rows = re.findall(r"^\| `(tequipy_[a-z_.]+)`", readme.read_text(encoding="utf-8"), flags=re.MULTILINE)
        yield from ((f"packages/{readme.parent.name}", module) for module in rows)


def _module_page(name: str, modules: Mapping[str, Any]) -> str:
    """Return the page of a module: its docstring, and what it exports; names of other packages are listed only."""
    module = modules[name]
    package = name.partition(".")[0]
    parts, foreign = [f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n   :no-members:\n"], []
    for export in module.__all__:
        value = getattr(module, export)  # some modules import what they export when it is used
        if str(getattr(value, "__module__", package)).partition(".")[0] in {package, "builtins", "typing"}:
            parts.append(_directive(f"{name}.{export}", value))
        else:
            home = next((other for other in modules if export in getattr(modules[other], "__all__", ())), None)
            foreign.append(f"``{export}``" + (f" (of :doc:`{home}`)" if home and home != name else ""))
    if foreign:
        parts.append(f"Exported here too: {', '.join(foreign)}.\n")
    return "\n".join(parts)


def _directive(path: str, value: object) -> str:
    if inspect.isclass(value):
        kind = "exception" if issubclass(value, BaseException) else "class"
        options = "   :members:\n   :exclude-members: model_config, production_rules\n"
        options += "" if value.__bases__ == (object,) else "   :show-inheritance:\n"
        return f".. auto{kind}:: {path}\n{options}"
    if inspect.isfunction(value) or inspect.iscoroutinefunction(value):
        return f".. autofunction:: {path}\n"
    shown = f"   :value: {value!r}\n" if len(repr(value)) <= _LONGEST_VALUE else ""
    return f".. py:data:: {path.rpartition('.')[2]}\n{shown}\n" + indent("\n".join(_docs_of(path, value)), "   ") + "\n"


def _docs_of(path: str, value: object) -> Sequence[str]:
    """Return the docstring of a constant, which stands after it in the module that assigns it."""
    package, name = path.partition(".")[0], path.rpartition(".")[2]
    for module in [each for each in sys.modules if each.partition(".")[0] == package]:
        if getattr(sys.modules[module], "__dict__", {}).get(name) is value:
            with suppress(PycodeError):
                docs: Mapping[tuple[str, str], Sequence[str]] = ModuleAnalyzer.for_module(module).find_attr_docs()
                if ("", name) in docs:
                    return docs["", name]
    return []


def _contract_page(document: Mapping[str, Any]) -> str:
    """Return the page of the HTTP contract: each operation by its tag, with its parameters and its answers."""
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["process"])[0]
            groups.setdefault(tag, []).append(_operation(method.upper(), path, operation))
    parts = [
        "# HTTP contract\n",
        "Every operation of the API, generated from [openapi.json](../../../apps/api/openapi.json).",
        "The running API has the same at `/docs`, to try requests, and at `/redoc`, with the schemas of all bodies.\n",
    ]
    for group, texts in groups.items():
        parts += [f"## {group[:1].upper()}{group[1:]}\n", *texts]
    return "\n".join(parts)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [f"### `{method} {path}`\n", operation.get("description", operation.get("summary", "")) + "\n"]
    if parameters := operation.get("parameters"):
        parts.append("| parameter | in | meaning |\n|---|---|---|")
        parts += [f"| `{each['name']}` | {each['in']} | {_cell(each.get('description', ''))} |" for each in parameters]
        parts.append("")
    parts.append("| status | meaning |\n|---|---|")
    for status, answer in operation["responses"].items():
        codes = ", ".join(f"`{code}`" for code in _codes(answer)) if status[0] in _ERRORS else ""
        parts.append(f"| {status} | {codes or _cell(answer['description'])} |")
    return "\n".join(parts) + "\n"


def _codes(answer: Mapping[str, Any]) -> list[str]:
    """Return the codes of the problems of a response, which are the names of its examples."""
    return sorted({code for content in answer.get("content", {}).values() for code in content.get("examples", {})})


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

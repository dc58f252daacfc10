"""Make a feature package: `make new-package NAME=billing`.

The files of the package come from `package_template`. In the lists of the workspace, of the import contracts and of
both apps its name is written after that of the model, `tequipy-reporting`.
"""

import keyword
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Final

from tequipy_devstack.processes import DevstackError

_TEMPLATE: Final = Path(__file__).with_name("package_template")
_NAME: Final = re.compile(r"[a-z][a-z0-9]{1,30}")
_VERSION: Final = re.compile(r'^version = "(.*)"$', re.MULTILINE)

_API: Final = "apps/api/src/tequipy_api"
_WORKER: Final = "apps/worker/src/tequipy_worker"

_REPEATED: Final[Mapping[str, str]] = {
    # Lines of the model that are repeated with the name of the new package, by file.
    "pyproject.toml": (
        r'tequipy-reporting = .*|    "tequipy_reporting(?:\.(?:api|migrations|tasks|testing|wiring))?",'
    ),
    f"{_API}/app.py": r"from tequipy_reporting\.api .*|    wire_reporting\(.*",
    f"{_API}/catalogue.py": r"from tequipy_reporting .*",
    f"{_API}/histories.py": r"from tequipy_reporting\.migrations .*",
    f"{_API}/settings.py": r"from tequipy_reporting\.wiring import SCHEMA .*",
    f"{_WORKER}/app.py": r"from tequipy_reporting import tasks .*",
    f"{_WORKER}/catalogue.py": r"from tequipy_reporting.*",
    f"{_WORKER}/settings.py": r"from tequipy_reporting\.wiring import SCHEMA .*",
}
_CONTRACT: Final = """
[[tool.importlinter.contracts]]
id = "private-{name}"
name = "Private modules of {name}"
type = "protected"
protected_modules = ["tequipy_{name}.api.*", "tequipy_{name}.domain", "tequipy_{name}.infrastructure"]
allowed_importers = ["tequipy_{name}"]
"""
_INSERTED: Final[Mapping[str, Mapping[str, str]]] = {
    # What follows each match of a pattern, by file; at least one match must exist.
    "pyproject.toml": {
        r'"tequipy_api \| tequipy_worker",\n    "tequipy_reporting': " | tequipy_{name}",
        r'    "tequipy-reporting\[.*\]",\n': '    "tequipy-{name}[api]",\n',
        r'(?<=, )"tequipy_reporting((?:\.\w+)?)"': r', "tequipy_{name}\1"',
        r'    "tequipy_reporting\.infrastructure",\n(?=    "tequipy_\w+\.(?:infrastructure|migrations))': (
            '    "tequipy_{name}.infrastructure",\n'
        ),
        r'allowed_importers = \["tequipy_reporting"\]\n': _CONTRACT,
    },
    "apps/api/pyproject.toml": {r'\n    "tequipy-reporting\[api\]==.*': '\n    "tequipy-{name}[api]=={version}",'},
    "apps/worker/pyproject.toml": {r'\n    "tequipy-reporting.*==.*': '\n    "tequipy-{name}=={version}",'},
    f"{_API}/app.py": {
        r"\nfrom tequipy_reporting\.wiring .*": "\nfrom tequipy_{name}.wiring import build_{name}",
        r"\n    reporting = build_reporting\((?:.|\n)*?\n    \)": (
            "\n    {name} = build_{name}(database, registry=metrics)"
        ),
    },
    f"{_API}/catalogue.py": {r"\*REPORTING,": " *{upper},"},
    f"{_API}/description.py": {
        r"\n    \{\"name\": \"reports\", .*": '\n    {{"name": "{name}", "description": "Items of {name}."}},'
    },
    f"{_API}/histories.py": {r"AUTH, REPORTING": ", {upper}"},
    f"{_API}/settings.py": {r"AUTH_SCHEMA, REPORTING_SCHEMA": ", {upper}_SCHEMA"},
    f"{_WORKER}/app.py": {
        r"\nfrom tequipy_reporting\.wiring .*": "\nfrom tequipy_{name}.wiring import build_{name}",
        r"\n    reporting = build_reporting\((?:.|\n)*?\n    \)": (
            "\n    {name} = build_{name}(database, registry=metrics)"
        ),
        r"\n            \*\*reporting_tasks\.build_handlers.*": "\n            **{name}_tasks.build_handlers({name}),",
    },
    f"{_WORKER}/catalogue.py": {
        r"\*AUTH, \*REPORTING": ", *{upper}",
        r"\*REPORTING_PERMISSIONS,": " *{upper}_PERMISSIONS,",
    },
    f"{_WORKER}/settings.py": {r"AUTH_SCHEMA, REPORTING_SCHEMA": ", {upper}_SCHEMA"},
    "docs/runbook.md": {
        r"\n### Tequipy reporting\n(?:(?!###).*\n)*(?=### )": (
            "### Tequipy {name}\n\nItems that were added.\n\n"
            "1. The panel `Items added` shows how many were added in an hour.\n"
            "2. The panel `Attempts that failed, by task` shows whether `{name}.check_item` fails.\n"
            "3. `tequipy-worker messages --task {name}.check_item` lists its messages.\n\n"
        )
    },
    "CHANGELOG.md": {r"## Unreleased\n\n### Added\n": "\n- `tequipy-{name}`: a new package."},
}


def make_package(root: Path, name: str) -> None:
    """Write the files of the package, and its name into the lists; raises `DevstackError` before any change."""
    if not _NAME.fullmatch(name) or name in sys.stdlib_module_names or keyword.iskeyword(name):
        raise DevstackError(
            f"NAME {name!r} should be one word of lower-case letters and digits that is no keyword and no module of "
            "the standard library: make new-package NAME=billing"
        )
    for folder in ("packages", "apps", "tools"):
        if (root / folder / name / "pyproject.toml").exists():
            raise DevstackError(f"{folder}/{name} exists already")
    used = [*_TEMPLATE.rglob("*.py.template"), root / f"{_API}/app.py", root / f"{_WORKER}/app.py"]
    if any(re.search(rf"\b{name}\b", path.read_text(encoding="utf-8"), re.IGNORECASE) for path in used):
        raise DevstackError(f"NAME {name!r} is a word that the package or an app uses for something else")
    (version,) = _VERSION.findall((root / "packages/reporting/pyproject.toml").read_text(encoding="utf-8"))
    values = {"name": name, "title": name.capitalize(), "upper": name.upper(), "version": version}
    changed = _changed_lists(root, values)
    for path, text in (changed | _files(values)).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
        print(path)


def render_package(name: str, *, version: str) -> dict[str, str]:
    """Return the texts of the files of a package by their paths in its folder."""
    values = {"name": name, "title": name.capitalize(), "version": version}
    return {path.removeprefix(f"packages/{name}/"): text for path, text in _files(values).items()}


def update_generated_files(root: Path, *, uv: str) -> None:
    """Update the lock file, the environment, the order of imports, the reference of settings and the HTTP contract."""
    binaries = Path(sys.executable).parent

    def run(*command: str | Path, to: Path | None = None) -> None:
        result = subprocess.run(command, cwd=root, check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603 -- our own tools
        if result.returncode:
            raise DevstackError(f"{' '.join(map(str, command))} ended with status {result.returncode}")
        if to is not None:
            to.write_text(result.stdout, encoding="utf-8")

    run(uv, "lock", "--quiet")
    run(uv, "sync", "--locked", "--quiet")
    run(binaries / "ruff", "check", "--quiet", "--fix", "packages", "apps")
    run(binaries / "ruff", "format", "--quiet", "packages", "apps")
    run(binaries / "python", ".ci/reference")
    run(binaries / "python", ".ci/public-api")
    run(binaries / "tequipy-api", "openapi", to=root / "apps/api/openapi.json")


def _files(values: Mapping[str, str]) -> dict[str, str]:
    files = {}
    for template in sorted(_TEMPLATE.rglob("*.template")):
        path = Template(str(template.relative_to(_TEMPLATE).with_suffix(""))).substitute(values)
        path = re.sub(r"^src/", f"src/tequipy_{values['name']}/", path)
        text = template.read_text(encoding="utf-8")
        folder = f"packages/{values['name']}"
        if path == "grafana.json":
            folder, path = "deploy/grafana", f"{values['name']}.json"
        files[f"{folder}/{path}"] = Template(text).substitute(values)
    return files


def _changed_lists(root: Path, values: Mapping[str, str]) -> dict[str, str]:
    changed = {}
    for path in dict.fromkeys([*_INSERTED, *_REPEATED]):
        text = (root / path).read_text(encoding="utf-8")
        for pattern, addition in _INSERTED.get(path, {}).items():
            text = _insert(path, text, pattern, addition.format(**values))
        if path in _REPEATED:
            # Each line becomes the addition to itself.
            lines = re.findall(rf"^(?:{_REPEATED[path]})\n", text, re.MULTILINE)
            for line in dict.fromkeys(lines):
                text = _insert(path, text, f"^{re.escape(line)}", _renamed(line, values))
        changed[path] = text
    return changed


def _insert(path: str, text: str, pattern: str, addition: str) -> str:
    """Insert after each match; raise `DevstackError` if there is none, because the file has been rearranged."""
    text, count = re.subn(pattern, rf"\g<0>{addition}", text, flags=re.MULTILINE)
    if not count:
        raise DevstackError(f"{path} has no {pattern!r}, after which the package belongs: adapt {__file__}")
    return text


def _renamed(line: str, values: Mapping[str, str]) -> str:
    return line.replace("reporting", values["name"]).replace("REPORTING", values["upper"])

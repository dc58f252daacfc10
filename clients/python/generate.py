#!/usr/bin/env python3
"""Write `src/tequipy_client/contract` from the OpenAPI document: `make clients`.

The functions raise an exception for each answer but a success, so the generator gets a document without the other
answers: then the type of a function is that of its success.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CONTRACT = HERE / "src/tequipy_client/contract"
UNUSED = ("client.py", "errors.py")
"""Files of the generator that the functions of our template do not use."""
SECRET = re.compile(r"^    \w*(token|password)\w*: ", re.MULTILINE)


def reduced(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without answers other than 2xx, without `If-None-Match`, and without unused schemas."""
    for operation in (operation for methods in document["paths"].values() for operation in methods.values()):
        successes = {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
        operation["responses"] = successes
        parameters = operation.get("parameters", [])
        operation["parameters"] = [each for each in parameters if each.get("name") != "If-None-Match"]
        for parameter in operation["parameters"]:
            if parameter["in"] == "header":  # FastAPI documents that it may be null, which no header field can
                parameter["schema"] = without_null(parameter["schema"])
        for answer in successes.values():
            contents = answer.get("content", {})
            if any(each["schema"].get("format") == "binary" for each in contents.values()):
                # The generator reads `text/csv` as text, also with the format `binary`.
                answer["content"] = {"application/octet-stream": next(iter(contents.values()))}
    schemas = document["components"]["schemas"]
    while unused := [name for name in schemas if f'"#/components/schemas/{name}"' not in json.dumps(document)]:
        for name in unused:
            del schemas[name]
    return document


def without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the first choice of a schema that is not null."""
    return next((each for each in schema.get("anyOf", ()) if each != {"type": "null"}), schema)


def write_codes(document: dict[str, Any], package: Path) -> None:
    """Write `codes.py`: the codes of all problems, as a type."""
    properties = [schema.get("properties", {}) for schema in document["components"]["schemas"].values()]
    codes = sorted(each["code"]["const"] for each in properties if "const" in each.get("code", {}))
    lines = [
        '"""The codes of problems. Do not edit."""',
        "",
        "from typing import Literal",
        "",
        "ProblemCode = Literal[",
    ]
    lines += [f'    "{code}",' for code in codes] + ["]", ""]
    package.joinpath("codes.py").write_text("\n".join(lines), encoding="utf-8")


def hide_secrets(package: Path) -> None:
    """Give models with passwords or tokens a `repr` without values."""
    for path in package.glob("models/*.py"):
        text = path.read_text(encoding="utf-8")
        if SECRET.search(text):
            path.write_text(text.replace("@_attrs_define\n", "@_attrs_define(repr=False)\n"), encoding="utf-8")


def generate(document: dict[str, Any], folder: Path) -> Path:
    """Return the package, made in this folder, or end with what the generator has complained about."""
    source, config, package = folder / "openapi.json", folder / "config.json", folder / "contract"
    source.write_text(json.dumps(reduced(deepcopy(document))), encoding="utf-8")
    config.write_text(json.dumps({"literal_enums": True}), encoding="utf-8")
    binaries = Path(sys.executable).parent
    command: list[str | Path] = [binaries / "openapi-python-client", "generate", "--path", source, "--config", config]
    command += ["--meta", "none", "--output-path", package, "--fail-on-warning"]
    command += ["--custom-template-path", HERE / "templates"]
    environment = {"PATH": f"{binaries}:/usr/bin:/bin"}  # the generator calls ruff
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(result.stdout + result.stderr)
    for name in UNUSED:
        package.joinpath(name).unlink()
    write_codes(document, package)
    hide_secrets(package)
    return package


def main() -> None:
    """Replace the package by one for the document that the argument names."""
    document = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        package = generate(document, Path(folder))
        shutil.rmtree(CONTRACT, ignore_errors=True)
        shutil.move(package, CONTRACT)


if __name__ == "__main__":
    main()

"""The modules of the packages, and those that the READMEs declare public."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = [path.parent.name for path in sorted(ROOT.glob("packages/*/pyproject.toml"))]
FEATURES = [package for package in PACKAGES if (ROOT / f"packages/{package}/src/tequipy_{package}/domain").is_dir()]


def sources_of(package: str) -> dict[str, Path]:
    """Return the files of a package in `packages/` by the names of their modules."""
    folder = ROOT / f"packages/{package}/src"
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path
        for path in folder.rglob("*.py")
        if not {"versions", "templates"} & set(path.parts)
    }


def public_modules(package: str) -> list[str]:
    """Return the modules in the table of a package's README."""
    readme = (ROOT / f"packages/{package}/README.md").read_text(encoding="utf-8")
    return re.findall(rf"^\| `(tequipy_{package}[a-z_.]*)`", readme, flags=re.MULTILINE)

"""
The list of modules in docs/architecture.md, from the first sentence of each module.

`python -m tests.module_list` writes it; `test_module_list.py` fails when it is not what this would write.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "architecture.md"
PACKAGES = ("avatar_site", "realtime", "conversations", "voices", "inference")
#: Whose names say everything in Django, or that are generated.
UNLISTED = {"apps.py", "urls.py", "api_urls.py", "page_urls.py", "routing.py", "wsgi.py"}
UNLISTED_FOLDERS = {"migrations", "proto", "settings", "fixtures", "testing"}
BEGIN, END = "<!-- modules: python -m tests.module_list -->\n", "<!-- end of modules -->\n"


def list_modules() -> dict[str, list[tuple[str, str]]]:
    """Return path and first sentence of every module, by package. Raises ValueError for a module that has none."""
    listed = {package: [_describe(path) for path in _find_modules(package)] for package in PACKAGES}
    scripts = sorted((ROOT / "static" / "js").glob("*.js"))
    listed["static/js"] = [(path.name, _read_first_sentence(path, _read_js_comment(path))) for path in scripts]
    return listed


def make_section() -> str:
    lines: list[str] = []
    for package, modules in list_modules().items():
        lines += ["", f"### {package}/", ""]
        lines += [f"- `{name}`: {sentence}" for name, sentence in modules]
    return BEGIN + "\n".join([*lines, "", END])


def replace_section(document: str) -> str:
    """Return the document with the list as it should be. Raises ValueError when the markers are gone."""
    before, rest = document.split(BEGIN, 1)
    return before + make_section() + rest.split(END, 1)[1]


def _find_modules(package: str) -> list[Path]:
    return [
        path
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name not in UNLISTED
        and not UNLISTED_FOLDERS & set(path.relative_to(ROOT).parts)
        and (path.name != "__init__.py" or ast.get_docstring(ast.parse(path.read_text())))
    ]


def _describe(path: Path) -> tuple[str, str]:
    name = path.relative_to(ROOT / path.relative_to(ROOT).parts[0]).as_posix()
    sentence = _read_first_sentence(path, ast.get_docstring(ast.parse(path.read_text())) or "")
    return name, sentence


def _read_js_comment(path: Path) -> str:
    lines = path.read_text().splitlines()
    end = next(number for number, line in enumerate([*lines, ""]) if not line.startswith("//"))
    return " ".join(line.removeprefix("//").strip() for line in lines[:end])


def _read_first_sentence(path: Path, text: str) -> str:
    paragraph = " ".join(text.split("\n\n")[0].split())
    sentence = re.split(r"(?<=\.)\s+(?=[A-Z`])", paragraph)[0]
    if not sentence.endswith((".", "`")):
        raise ValueError(f"{path.relative_to(ROOT)}: begin with a sentence that says what the module holds")
    return sentence


if __name__ == "__main__":
    DOCUMENT.write_text(replace_section(DOCUMENT.read_text()))

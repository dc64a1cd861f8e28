"""The pages for readers: links lead somewhere, code is Python, commands have their options."""

import ast
import re
from pathlib import Path

import pytest

from keras_spectral.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LARGEST_IMAGE = 150_000
"""Bytes: pages should open at once, and the repository stay small."""

LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _name(page):
    return str(page.relative_to(ROOT))


def _text(page):
    return page.read_text(encoding="utf-8")


def _prose(page):
    return BLOCK.sub("", _text(page))


def _blocks(page, language):
    return [code for name, code in BLOCK.findall(_text(page)) if name == language]


def _anchors(page):
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_lead_to_files_and_headings(page):
    targets = [link for link in LINK.findall(_prose(page)) if "://" not in link]
    for target in targets:
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{_name(page)} links to {target}, which is not there"
        assert not heading or heading in _anchors(file), f"no heading {target}"


def test_every_page_is_in_the_index():
    index = _text(ROOT / "docs" / "README.md")
    others = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert others <= set(LINK.findall(index))


def test_every_image_is_shown_and_small():
    shown = {Path(link).name for page in PAGES for link in LINK.findall(_text(page))}
    for image in (ROOT / "docs" / "images").iterdir():
        assert image.name in shown, f"{image.name} is on no page"
        assert image.stat().st_size < LARGEST_IMAGE, f"{image.name} is too large"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_python_in_pages_is_python(page):
    for code in _blocks(page, "python"):
        ast.parse(code)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_in_pages_have_the_options_that_are_named(page):
    commands = {name: command.params for name, command in main.commands.items()}
    known = {name: {o for p in params for o in p.opts} for name, params in commands.items()}
    for code in _blocks(page, "sh"):
        for line in code.replace("\\\n", " ").splitlines():
            name = re.match(r"keras-spectral (\w+)", line)
            given = set(re.findall(r"(?<=\s)--[\w-]+", line))
            assert name is None or given <= known[name[1]], line


def test_glossary_is_sorted():
    page = _text(ROOT / "docs" / "glossary.md")
    terms = re.findall(r"^\*\*(.+?)\*\*", page, re.MULTILINE)
    plain = [re.sub(r"[^a-z0-9 ]", "", term.lower().replace("-", " ")) for term in terms]
    assert plain == sorted(set(plain))

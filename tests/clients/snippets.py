"""The code in docs/clients.md, and what to run it with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PATH = Path(__file__).parents[2] / "docs" / "clients.md"
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_CODE = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Section -> whose environment its Python snippets are run in.
CLIENTS = {
    "openai-python": "openai",
    "Anthropic SDK": "anthropic",
    "LangChain": "langchain",
    "LiteLLM": "litellm",
    "Pydantic AI": "pydantic-ai",
    "OpenAI Agents SDK": "openai-agents",
}


class Snippet(NamedTuple):
    """One block of code that can be run."""

    section: str
    language: str
    number: int  # within its section
    code: str

    @property
    def id(self) -> str:
        """Its name as a test's."""
        return f"{self.section}-{self.number}"


def snippets() -> list[Snippet]:
    """All Python and shell snippets of the page, in its order."""
    parts = _SECTION.split(PATH.read_text())
    sections = [("Clients", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]
    return [
        Snippet(section, language, number, code)
        for section, text in sections
        for number, (language, code) in enumerate(_CODE.findall(text))
    ]

"""llm-comply: checks the three APIs against their published schemas."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import driver

FORMATS = {"chat": "openai-chat", "responses": "open-responses", "messages": "anthropic"}
# It asks only models with such names for their reasoning; the gateway's settings map them.
MODELS = {"chat": "gpt-5-mapped", "responses": "gpt-5-mapped", "messages": driver.MODEL}
LEAST = {"chat": 9, "responses": 13, "messages": 9}


def check(api: str) -> list[dict[str, Any]]:
    """The results of all its checks."""
    command = [str(Path(sys.executable).with_name("llm-comply")), "--format", FORMATS[api], "--json"]
    done = subprocess.run(
        [*command, "-u", driver.OPENAI_URL, "-k", driver.KEY, "-m", MODELS[api]],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    results: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return results


def conformance(api: str) -> None:
    """Every check that there is must pass, with no warning but that `compact` is not there."""
    results = check(api)
    driver.same([result for result in results if result["status"] != "passed"], [])
    warned = [result for result in results if result.get("warnings")]
    driver.same([result for result in warned if "compact" not in result["id"]], [])
    driver.same(len(results) >= LEAST[api], True)


for name in FORMATS:
    driver.feature(name, "conformance")(lambda case, api=name: conformance(api))
driver.script({"thinking": "15 * 37 = 555", "text": "555"}, contains="Show your reasoning")
driver.main("llm-comply")

"""The files that a task of claude_code_api names: found and checked before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ccd_gateway.compat.task import CompatTaskOptions
from ccd_gateway.errors import bad_request
from ccd_gateway.images import confined
from ccd_gateway.images.confined import Confined, Place

_MAX_CONTEXT_BYTES = 1 << 20


class Files(NamedTuple):
    """The files of a task, checked."""

    context: str | None
    output: Place | None

    @property
    def output_path(self) -> str | None:
        """Where the answer goes, for another process that knows the same roots."""
        return None if self.output is None else str(Path(self.output.root, *self.output.parts))


class TaskFiles:
    """Opens them.

    Args:
        roots: the directories that requests may name files in.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._files = Confined(roots)

    def open(self, options: CompatTaskOptions) -> Files:
        """Find and check the files; blocks.

        Raises:
            ApiError: 400, naming the option.
        """
        base = self._base(options)
        context, output = None, None
        if options.output_file is not None:
            output = self._files.place(options.output_file, "options.output_file", base)
            confined.check_writable(output, "options.output_file")
        if options.context_file is not None:
            place = self._files.place(options.context_file, "options.context_file", base)
            data = confined.read(place, "options.context_file", _MAX_CONTEXT_BYTES)
            try:
                context = data.decode()
            except UnicodeDecodeError:
                raise bad_request(
                    "'options.context_file': is not text in UTF-8.", "options.context_file"
                ) from None
        return Files(context, output)

    def _base(self, options: CompatTaskOptions) -> Place | None:
        """Where relative paths begin: `working_dir`, which may be relative to `project_dir`.

        Directories have no other use, as the model has no tools. A task that names one without such a path
        expects more than it would get, and is refused.
        """
        base: Place | None = None
        for name in ("project_dir", "working_dir"):
            text = getattr(options, name)
            if text is None:
                continue
            base = self._files.place(text, f"options.{name}", base)
            confined.check_directory(base, f"options.{name}")
            named = (options.context_file, options.output_file)
            if not any(path is not None and not path.startswith("/") for path in named):
                raise bad_request(
                    f"'options.{name}': answers are made without access to directories, so it would have no effect. "
                    "It is where relative paths of context_file and output_file begin; give one of those.",
                    f"options.{name}",
                    "unsupported_parameter",
                )
        return base

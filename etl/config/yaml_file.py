"""The configuration's YAML (`--config`), its values as text."""

from pathlib import Path
from typing import Any

import yaml

from etl.model.errors import UsageError


class _TextLoader(yaml.SafeLoader):
    """Scalars stay the text that they are: an account id of digits is not a number.

    The model parses them as it parses the environment's; only null is YAML's.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class's name for it
        first: [(tag, regexp) for tag, regexp in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read(file: Path) -> dict[str, Any]:
    """Return the keys that are given, sections as mappings. Raises UsageError."""
    try:
        content = yaml.load(file.read_text("utf-8"), Loader=_TextLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise UsageError(f"--config {file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--config {file}: not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        # The mark's own text quotes the line, and a secret may stand there.
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"--config {file}: not YAML: {error.problem}{where}") from None
    except yaml.YAMLError:
        raise UsageError(f"--config {file}: not YAML") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"--config {file}: must be keys and values at the top level")
    # `section:` with nothing behind it is an empty section, not a wrong one.
    return {str(key): value for key, value in content.items() if value is not None}

"""Where files lay is nobody's business: what goes into a record names them without their folders."""

import re
from typing import Any

PATHS = ("source", "path", "canaries", "data", "generator")
"""Keys of a plan that may name a file, absolute or not."""

_QUOTED = re.compile(r"""(['"])(~?/|[A-Za-z]:[\\/]|\\\\)[^'"\n]*\1""")
# Two parts at least, so that "members/second" and " /s" stay; a URL's path follows its host and is left alone.
_BARE = re.compile(r"""(?:file://|(?<![\w./\\~-])~?)(?:/(?!/)[^\s/'"<>|;,()\[\]{}]+){2,}/?""")
_WINDOWS = re.compile(r"""(?<![\w])[A-Za-z]:\\[^\s'"<>|;,()\[\]{}]+""")


def without_paths(text: str) -> str:
    """Return text with every absolute path reduced to its last part.

    Examples:
        >>> without_paths("[Errno 2] No such file: '/home/ada/My data/x.csv' (see /var/tmp/log.txt)")
        "[Errno 2] No such file: 'x.csv' (see log.txt)"
    """
    text = _QUOTED.sub(lambda found: f"{found[1]}{file_name(found[0][1:-1])}{found[1]}", text)
    return _WINDOWS.sub(lambda found: file_name(found[0]), _BARE.sub(lambda found: file_name(found[0]), text))


def file_name(path: str) -> str:
    r"""Return the last part of a path of any system; what has no folder stays as it is.

    Examples:
        >>> file_name("../data/adult.csv"), file_name(r"C:\data\x.csv"), file_name("digits")
        ('adult.csv', 'x.csv', 'digits')
    """
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def plan_without_paths(content: Any) -> Any:
    """Return a plan's content, JSON-ready, with paths reduced to file names: by their keys, and in any other text."""
    if isinstance(content, dict):
        return {
            name: file_name(value) if name in PATHS and isinstance(value, str) else plan_without_paths(value)
            for name, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [plan_without_paths(value) for value in content]
    return without_paths(content) if isinstance(content, str) else content

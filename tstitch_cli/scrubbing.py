"""Takes out of a text who and where it comes from, so that it can be shown to others."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SECRET = re.compile(r"(^|_)(TOKEN|PAT|KEY|PASS|CREDENTIALS?)$|SECRET|PASSW|API_?KEY", re.IGNORECASE)
"""Names of variables that hold a secret; what counts or switches tokens is named otherwise."""
_HARMLESS = re.compile(r"[A-Za-z]*|[0-9.,_+-]*")
"""A word or a number, which such a variable may hold as well, and which stands elsewhere for itself."""
_FORMS = re.compile(
    r"\b(hf_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{8,}|gh[oprsu]_[A-Za-z0-9]{8,}|github_pat_\w{8,}|sk-[\w-]{8,}|A[KS]IA[A-Z0-9]{12,})"
)
"""Of the hub's tokens, GitHub's, OpenAI's and its likes', and AWS's."""
_IN_ADDRESS = re.compile(r"""(?<=://)[^\s/'"<>]+@""")
_USER_VARIABLES, _HOST_VARIABLES = ("USER", "LOGNAME", "LNAME", "USERNAME"), ("HOSTNAME", "HOST", "COMPUTERNAME")
SHORTEST, SHORTEST_SECRET = 2, 8
"""A name of one letter, taken out, would leave nothing to read."""


@dataclass(frozen=True)
class Scrubber:
    """What is taken out: homes become ~, the others a word in angle brackets."""

    homes: tuple[str, ...]
    users: tuple[str, ...]
    hosts: tuple[str, ...]
    secrets: tuple[str, ...]

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Scrubber:
        """For this user, on this machine, with what `environment` names as a token, key or password."""
        import platform
        import socket

        homes, users, hosts = [environment.get("HOME", ""), environment.get("USERPROFILE", "")], [], []
        with suppress(RuntimeError, OSError):
            homes += [str(Path.home()), str(Path.home().resolve())]
        users += [environment.get(name, "") for name in _USER_VARIABLES]
        with suppress(ImportError, KeyError, OSError, AttributeError):
            import pwd

            users.append(pwd.getpwuid(os.getuid()).pw_name)
        full = [*(environment.get(name, "") for name in _HOST_VARIABLES), socket.gethostname(), platform.node()]
        hosts += full + [name.split(".")[0] for name in full]
        secrets = [
            value
            for name, value in environment.items()
            if _SECRET.search(name) and len(value) >= SHORTEST_SECRET and not _HARMLESS.fullmatch(value)
        ]
        with suppress(Exception):  # a token that was stored by `hf auth login`, if that library can be asked
            from huggingface_hub import get_token

            secrets.append(get_token() or "")
        hosts = [name for name in hosts if name.lower() not in ("localhost", "")]
        return cls(_longest_first(homes), _longest_first(users), _longest_first(hosts), _longest_first(secrets))

    def __call__(self, text: str) -> str:
        """`text` without any of them."""
        for secret in self.secrets:
            text = text.replace(secret, "<secret>")
        text = _IN_ADDRESS.sub("<secret>@", _FORMS.sub("<secret>", text))
        for home in self.homes:
            text = re.sub(re.escape(home.rstrip("/\\")) + r"(?![A-Za-z0-9_.-])", "~", text)
        for names, instead in ((self.users, "<user>"), (self.hosts, "<host>")):
            for name in names:
                text = re.sub(
                    rf"(?<![A-Za-z0-9<]){re.escape(name)}(?![A-Za-z0-9>])", instead, text, flags=re.IGNORECASE
                )
        return text


def _longest_first(found: list[str]) -> tuple[str, ...]:
    """So that no part of a longer one is left over."""
    worth = {each for each in found if len(each) >= SHORTEST}
    return tuple(sorted(worth, key=lambda each: (-len(each), each)))

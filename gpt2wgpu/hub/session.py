"""Requests to a hub, through huggingface_hub: its session, addresses and tokens.

In addition, a request waits as long as the hub asks, and every failure is one line that says what to do and shows no password.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from .. import __version__
from ..errors import UserError, show
from ..progress import notice

T = TypeVar("T")
BUSY = (408, 429, 500, 502, 503, 504)  # statuses after which a request is repeated
TRIES = 5  # attempts at a request while the hub is busy, or at a download that brings no new byte
PIECE = 1 << 16  # bytes written at a time; when a connection breaks, `requests` loses those of the current piece
LONGEST_WAIT = 600  # seconds; a hub that asks for more is an error
HEADERS = {"user-agent": f"gpt2wgpu/{__version__}"}  # huggingface_hub's own lists the other installed packages


@dataclass(frozen=True)
class Remote:
    """A file on the hub. etag: its name among the blobs, and its checksum. size: in bytes; None if the hub does not say."""

    file: str
    url: str
    etag: str
    size: int | None


class Session:
    """Asks a hub about one repository at one revision. Raises UserError."""

    def __init__(self, name: str, revision: str, token: str | bool | None) -> None:
        check_address(os.environ.get("HF_ENDPOINT"))
        try:
            from huggingface_hub import constants, utils
            from huggingface_hub.errors import HfHubHTTPError

            self.constants: Any = constants
            self.utils: Any = utils
            self.utils.get_session()
            found = self.utils.get_token_to_send(token)
        except Exception as e:  # an invalid variable, token=True without a token, a proxy whose package is missing
            what = f"huggingface_hub cannot ask for {name}: {error_reason(e)}"
            raise UserError(f"{what}: see its variables (HF_...), and those of proxies") from None
        if found is not None and not (isinstance(found, str) and re.fullmatch(r"[!-~]+", found)):  # the token is not shown
            raise UserError(f"the token for {name} is not valid: expected letters and digits such as hf_..., without blanks")
        self.name, self.revision = name, revision
        self.token: str | bool = found or False
        self.status_error = HfHubHTTPError
        # The errors for no answer depend on the library under huggingface_hub: requests, httpx or httpx2.
        bases = {c.__name__: c for c in HfHubHTTPError.__mro__}
        self.no_answer: tuple[type[Exception], ...] = (bases.get("RequestException", bases["HTTPError"]), ConnectionError)
        self.endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        check_address(self.endpoint)
        self.address = hide_password(self.endpoint)  # for messages

    def contents(self) -> tuple[str, dict[str, int | None]]:
        """The commit that the revision means now, and its files with their sizes in bytes (None if unknown)."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, token=self.token, headers=HEADERS)
        timeout = self.constants.HF_HUB_ETAG_TIMEOUT
        info = self.ask(lambda: api.model_info(self.name, revision=self.revision, timeout=timeout, files_metadata=True))
        if not isinstance(info.sha, str) or not re.fullmatch(r"[\w-]+", info.sha):
            raise self.no_hub()
        if info.siblings is not None:
            return info.sha, {s.rfilename: s.size for s in info.siblings}
        return info.sha, dict.fromkeys(self.ask(lambda: api.list_repo_files(self.name, revision=info.sha)))

    def look_up(self, file: str, commit: str) -> Remote:
        """A file's address, checksum and size."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(self.name, file, revision=commit, endpoint=self.endpoint)
        timeout = self.constants.HF_HUB_ETAG_TIMEOUT
        found = self.ask(lambda: get_hf_file_metadata(url, token=self.token, timeout=timeout, headers=HEADERS), file)
        # the answer of a proxy, such as the login page of a network, has no commit
        if found.commit_hash is None or found.etag is None or not re.fullmatch(r"\w[\w.-]*", found.etag):
            raise self.no_hub()
        return Remote(file, url, found.etag, found.size)

    @contextmanager
    def stream(self, remote: Remote, start: int) -> Iterator[tuple[int, int | None, Iterator[bytes]]]:
        """A request for a file from byte `start` on. Gives where its bytes begin, the size of the whole file if known, its bytes.

        The session sends the token to the hub, and not to another host that it redirects to.
        """
        headers = self.utils.build_hf_headers(token=self.token, headers=HEADERS)
        headers |= {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        session: Any = self.utils.get_session()
        timeout = self.constants.HF_HUB_DOWNLOAD_TIMEOUT
        if callable(getattr(session, "stream", None)):  # httpx, from huggingface_hub 1.0 on; requests before
            opened = session.stream("GET", remote.url, headers=headers, timeout=timeout, follow_redirects=True)
        else:
            opened = session.get(remote.url, headers=headers, timeout=timeout, stream=True)
        with opened as response:
            self.utils.hf_raise_for_status(response)
            length, begin = response.headers.get("Content-Length", ""), 0
            if response.status_code == 206:
                found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
                begin = int(found[1]) if found else -1
            # a proxy that compresses despite the header announces the compressed length
            known = length.isdecimal() and "Content-Encoding" not in response.headers
            chunks = response.iter_bytes() if hasattr(response, "iter_bytes") else response.iter_content(PIECE)
            yield begin, begin + int(length) if known else None, chunks

    def ask(self, call: Callable[[], T], file: str | None = None) -> T:
        """The answer to a request. Waits while the hub is busy. Raises UserError."""
        for attempt in range(1, TRIES + 1):
            try:
                return call()
            except self.status_error as e:
                why, wait = self.busy(e, file)
                tries = TRIES
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # not JSON, or a loop of redirects
                raise self.no_hub() from None
            except self.no_answer as e:
                why, wait, tries = error_reason(e), None, 2
            if attempt >= tries:
                break
            self.wait(2 ** (attempt - 1) if wait is None else wait, why)
        what = f"{self.address} cannot be reached for {self.name} ({why})"
        if "429" in why:
            what = f"{self.address} answers that there are too many requests (429), also after {TRIES} attempts"
            raise UserError(f"{what}: wait some minutes; with a token (HF_TOKEN) it allows more")
        raise UserError(f"{what}: check the connection, or use a model that is in the cache or a local folder")

    def busy(self, error: Any, file: str | None) -> tuple[str, float | None]:
        """Why a hub cannot answer now, and the seconds that it asks to wait. Raises UserError for any other status."""
        if error.response.status_code not in BUSY:
            raise self.refusal(error, file)
        return f"it answers {error.response.status_code}", requested_wait(error.response.headers)

    def wait(self, seconds: float, why: str) -> None:
        """Sleep before the next attempt, and say so if it takes long. Raises UserError if it takes too long."""
        if seconds > LONGEST_WAIT:
            raise UserError(f"{self.address} asks to wait {seconds:,.0f} s ({why}): try again then")
        if seconds >= 5:
            notice(f"{self.address}: {why}; asking again in {seconds:.0f} s")
        time.sleep(seconds)

    def refusal(self, error: Any, file: str | None) -> UserError:
        """What a status means, and what to do."""
        status, code = error.response.status_code, error.response.headers.get("X-Error-Code")
        sign_in = "with another token or none" if self.token else "with a token"
        sign_in += " (token=, HF_TOKEN or `hf auth login`)"
        if code == "GatedRepo":
            return UserError(
                f"{self.name} is gated ({status}): accept its conditions at {self.address}/{self.name}, then try {sign_in}"
            )
        said = str(error.response.headers.get("X-Error-Message") or "").strip()
        if status == 403:
            what = f"{file or 'the list of files'} of {self.name} ({show(said, 160) if said else 'it does not say why'})"
            return UserError(f"{self.address} answers 403, forbidden, for {what}: try {sign_in}, or again later")
        if status == 401:
            return UserError(f"{self.address} does not give {self.name} (401): check the name; if it is private, try {sign_in}")
        if code == "RevisionNotFound":
            return UserError(f"{self.name} has no revision {show(self.revision)}: give a branch, a tag or a whole commit hash")
        if status == 404 and file is not None:
            return UserError(f"{self.name} has no {file} (404), though it is listed: try again later")
        if status == 404:
            return UserError(
                f"there is no model {self.name} on {self.address}, and no folder of that name: give org/name, or a folder"
            )
        return UserError(f"{self.address} answers {status} for {file or 'the list of files'} of {self.name}: try again later")

    def no_hub(self) -> UserError:
        """The error for an answer that no hub gives."""
        return UserError(f"{self.address} does not answer as a hub does: check HF_ENDPOINT, and proxies in between")


def check_address(endpoint: str | None) -> None:
    """Raise UserError unless this is None or an http address."""
    try:
        if endpoint is None or (re.fullmatch(r"https?://[^\s/]+(/\S*)?", endpoint) and urlsplit(endpoint).port != 0):
            return
    except ValueError:  # a port that is not a number, half an IPv6 address
        pass
    raise UserError(f"HF_ENDPOINT is {show(hide_password(endpoint or ''))}, expected an address such as https://huggingface.co")


def requested_wait(headers: Any) -> float | None:
    """Seconds that an answer asks to wait: its Retry-After, or the time left in its RateLimit header."""
    given = str(headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", given):
        return float(given)
    left = re.search(r"\br\s*=\s*0\s*;\s*t\s*=\s*(\d+)", str(headers.get("RateLimit") or ""))
    return float(left[1]) if left else None


def error_reason(error: BaseException) -> str:
    """The first line of an error's message, without passwords."""
    text = hide_password(str(error)) or type(error).__name__
    return show(text.strip().splitlines()[0].strip() if text.strip() else text, 160).strip("'\"")


def hide_password(text: str) -> str:
    """A text whose addresses, such as https://user:password@host, do not show user and password."""
    return re.sub(r"(\w+://)?[^\s'\"()<>]*@", lambda found: f"{found[1] or ''}***@", text)

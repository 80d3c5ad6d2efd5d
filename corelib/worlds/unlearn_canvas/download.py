"""Fetching the paper's assets from where their authors published them, once, with a network, and checked.

The Hub's own client does the transfers. A file goes on in its middle where an earlier call was stopped, and what
arrives is compared with the hash under which the Hub keeps it before it gets its name.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx2
from huggingface_hub import HfApi, constants, errors, get_token, hf_hub_url
from huggingface_hub.file_download import http_get
from pydantic import Field, ValidationError

from corelib.errors import ArtefactError, AssetError, ConfigurationError, first_line_of, reason_of
from corelib.files.hashing import sha256_of
from corelib.files.paths import named_below
from corelib.files.yaml_files import UnreadableYaml, read_yaml
from corelib.settings.section import Section

SOURCES = "assets.yaml"
"""Below the configuration folder."""

AGAIN = "run `make assets` again where there is a network: it goes on where it stopped"


class HubRepository(Section):
    """A repository of the Hugging Face Hub; a revision of None is resolved once and then locked."""

    kind: Literal["dataset", "model"]
    repository: str
    revision: str | None

    @property
    def name(self) -> str:
        """In words, and as the lock names it."""
        return f"{self.kind} {self.repository}"


class Source(Section):
    """Where an asset is published, and where it is put (`config/assets.yaml` says more)."""

    what: str
    hub: HubRepository | None = None
    url: str | None = Field(default=None, pattern=r"^https?://")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]+$")
    files: list[str] = Field(default_factory=list)
    folder: str
    path: str
    gigabytes: float = Field(ge=0, allow_inf_nan=False)
    licence: str

    @property
    def place(self) -> str:
        """Where the asset lies once it is fetched."""
        return f"{self.folder}/{self.path}".rstrip("/")

    @property
    def origin(self) -> str:
        """Who publishes it, in words."""
        return self.url or (self.hub.name if self.hub else "")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a Hub repository: its size, and its hash as the Hub keeps it (sha256, or git's of small files)."""

    name: str
    size: int
    sha256: str | None
    blob: str | None


def load_sources(folder: Path) -> dict[str, Source]:
    """The rows of `assets.yaml` in a configuration folder. Raises `ConfigurationError` with one sentence."""
    path = folder / SOURCES
    try:
        rows = read_yaml(path)
        sources = {name: Source.model_validate(row) for name, row in rows.items()}
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{path}: {key} is {str(first['input'])[:80]!r}: {first['msg']}.") from None
    except UnreadableYaml as error:
        raise ConfigurationError(f"{error.place_in(path)}: not readable as YAML: {reason_of(error)}.") from None
    except AttributeError as error:
        raise ConfigurationError(f"{path}: not readable as rows of assets ({reason_of(error)}).") from None
    for name, source in sources.items():
        if (source.hub is None) == (source.url is None):
            raise ConfigurationError(f"{path}: {name} has {source.origin or 'no source'}, expected either hub or url.")
        if any(_leads_out(pattern) for pattern in source.files):
            raise ConfigurationError(f"{path}: {name}.files is {source.files}, expected patterns below the repository.")
        if _leads_out(source.folder) or _leads_out(source.place):
            raise ConfigurationError(f"{path}: {name} is put at {source.place}, expected a place below this folder.")
    return sources


def _leads_out(name: str) -> bool:
    try:
        named_below(Path(), name)
    except ArtefactError:
        return True
    return False


def resolve(hub: HubRepository, locked: str | None) -> str:
    """The commit of a repository: the locked one, or what its revision (or newest state) is now."""
    if locked is not None:
        return locked
    with _said_of(hub.name, hub.revision):
        found = HfApi().repo_info(hub.repository, repo_type=hub.kind, revision=hub.revision)
    if found.sha is None:
        raise AssetError(f"{hub.name}: the Hub names no commit of it, expected one.")
    return str(found.sha)


def list_files(source: Source, commit: str, unet: str) -> list[RemoteFile]:
    """The files of a Hub row at a commit, in order. Raises `AssetError` if one of its patterns matches nothing."""
    assert source.hub is not None
    hub = source.hub
    with _said_of(hub.name, commit):
        listing = HfApi().dataset_info if hub.kind == "dataset" else HfApi().model_info
        siblings = listing(hub.repository, revision=commit, files_metadata=True).siblings
    found = {}
    for pattern in (pattern.replace("{unet}", unet) for pattern in source.files):
        matching = [file for file in siblings or [] if fnmatch.fnmatchcase(file.rfilename, pattern)]
        if not matching:
            raise AssetError(
                f"{hub.name}: no file there matches {pattern} at {commit[:12]}; expected {source.what}. If you have "
                f"it, put it at {source.place}, or name its place in `world.assets` of your study."
            )
        for file in matching:
            if _leads_out(file.rfilename):
                raise AssetError(f"{hub.name}: the file name {file.rfilename!r} leads out of its folder.")
            sha256 = file.lfs.sha256 if file.lfs else None
            found[file.rfilename] = RemoteFile(file.rfilename, int(file.size or 0), sha256, file.blob_id)
    return [found[name] for name in sorted(found)]


def fetch_from_hub(source: Source, commit: str, files: list[RemoteFile], say: Callable[[str], None]) -> None:
    """Bring the files of a Hub row into its folder; those that are there already are only checked.

    Raises `AssetError` if the network fails, in which case what has arrived is kept, or if a file has other bytes than
    the Hub says, in which case it is removed.
    """
    assert source.hub is not None
    hub, token = source.hub, get_token()
    for number, file in enumerate(files, start=1):
        path = Path(source.folder) / file.name
        if path.is_file() and path.stat().st_size == file.size and _is(file, path):
            continue
        say(f"  {number} of {len(files)}: {file.name}")
        url = hf_hub_url(hub.repository, file.name, repo_type=hub.kind, revision=commit)
        with _said_of(hub.name, commit):
            part = _transfer(url, path, file.size, {"authorization": f"Bearer {token}"} if token else {})
        if not _is(file, part):
            part.unlink()
            raise AssetError(
                f"{path}: what arrived has another hash than {(file.sha256 or file.blob or '')[:12]}, which {hub.name} "
                f"says of it; it was removed: {AGAIN}."
            )
        part.replace(path)


def fetch_from_url(source: Source) -> None:
    """Bring the file of a URL row to its place. Raises `AssetError` as `fetch_from_hub` does."""
    assert source.url is not None
    path = Path(source.place)
    with _said_of(source.url, None):
        part = _transfer(source.url, path, None, {})
    found = sha256_of(part)
    if not found.startswith(source.sha256 or ""):
        part.unlink()
        raise AssetError(
            f"{path}: what arrived from {source.url} has the sha256 {found[:12]}, expected {source.sha256}; it was "
            f"removed: {AGAIN}."
        )
    part.replace(path)


def _transfer(url: str, path: Path, size: int | None, headers: dict[str, str]) -> Path:
    """A file beside `path` with all that the server has; it goes on from what an earlier call left there.

    The Hub's client has this function below the one that people call, which begins anew in every process.
    """
    part = path.with_name(f".{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    if size is not None and part.exists() and part.stat().st_size > size:
        part.unlink()
    with part.open("ab") as stream:
        there = stream.tell()
        http_get(url, stream, resume_size=there, headers=headers, expected_size=size, displayed_filename=path.name)
    return part


def _is(file: RemoteFile, path: Path) -> bool:
    """Whether a local file has the bytes under whose hash the Hub keeps it."""
    if file.sha256 is not None:
        return sha256_of(path) == file.sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == file.blob


@contextmanager
def _said_of(origin: str, revision: str | None) -> Iterator[None]:
    """Turns what the Hub's client raises into one sentence each."""
    try:
        yield
    except errors.RevisionNotFoundError:
        raise AssetError(
            f"{origin}: it has no revision {revision!r}, expected one of its branches, tags or commits; see {SOURCES}."
        ) from None
    except errors.GatedRepoError:
        raise AssetError(
            f"{origin}: the Hub lets only those in whom its owners have let in; ask for access on its page, and log in "
            "by `hf auth login`."
        ) from None
    except errors.RepositoryNotFoundError:
        raise AssetError(
            f"{origin}: the Hub has no such repository, or it is private; expected what {SOURCES} names."
        ) from None
    except errors.EntryNotFoundError as error:
        raise AssetError(f"{origin}: a file that it lists is not there ({first_line_of(error)}).") from None
    except errors.HfHubHTTPError as error:
        raise AssetError(f"{origin}: the server refused ({first_line_of(error)}); {AGAIN}.") from None
    except (httpx2.HTTPError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, ConnectionError) as error:
        server = constants.ENDPOINT if "://" not in origin else "the server"
        raise AssetError(f"{origin}: {server} cannot be reached ({first_line_of(error)}); {AGAIN}.") from None
    except OSError as error:
        raise AssetError(f"{origin}: the transfer failed ({first_line_of(error)}); {AGAIN}.") from None

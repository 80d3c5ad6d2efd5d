"""Downloads the paper's assets, once, from the servers on which their authors published them, and verifies them.

The Hub's own client transfers the files. A transfer resumes where an earlier call stopped, and a file gets its name
only after a comparison with the hash that the Hub records.
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

from corelib.errors import ArtefactError, AssetError, ConfigurationError, first_line_of, short_message
from corelib.files.hashing import sha256_of_path
from corelib.files.paths import unresolved_path_inside
from corelib.files.yaml_files import UnreadableYaml, read_yaml
from corelib.settings.section import Section

SOURCES_FILE = "assets.yaml"
"""File name in the configuration folder."""

RETRY_ADVICE = "run `make assets` again with a network connection to resume where it stopped"


class HubRepository(Section):
    """A repository on the Hugging Face Hub. A revision of None is resolved once and then locked."""

    kind: Literal["dataset", "model"]
    repository: str
    revision: str | None

    @property
    def name(self) -> str:
        """Kind and repository, as written in the lock file."""
        return f"{self.kind} {self.repository}"


class Source(Section):
    """Where an asset is published, and where it is stored (documented in `config/assets.yaml`)."""

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
        """Path of the asset after the download."""
        return f"{self.folder}/{self.path}".rstrip("/")

    @property
    def origin(self) -> str:
        """The URL or Hub repository that publishes it."""
        return self.url or (self.hub.name if self.hub else "")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a Hub repository, with its size and the hash that the Hub records (for small files, the git hash)."""

    name: str
    size: int
    sha256: str | None
    blob: str | None


def load_sources(folder: Path) -> dict[str, Source]:
    """The entries of `assets.yaml` in a configuration folder. Raises `ConfigurationError` if it is invalid."""
    path = folder / SOURCES_FILE
    try:
        rows = read_yaml(path)
        sources = {name: Source.model_validate(row) for name, row in rows.items()}
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{path}: {key} is {str(first['input'])[:80]!r}: {first['msg']}.") from None
    except UnreadableYaml as error:
        raise ConfigurationError(f"{error.location_in(path)}: not readable as YAML: {short_message(error)}.") from None
    except AttributeError as error:
        raise ConfigurationError(f"{path}: not readable as rows of assets ({short_message(error)}).") from None
    for name, source in sources.items():
        if (source.hub is None) == (source.url is None):
            raise ConfigurationError(f"{path}: {name} has {source.origin or 'no source'}, expected either hub or url.")
        if any(_leads_out(pattern) for pattern in source.files):
            raise ConfigurationError(
                f"{path}: {name}.files is {source.files}, expected patterns inside the repository."
            )
        if _leads_out(source.folder) or _leads_out(source.place):
            raise ConfigurationError(f"{path}: {name} is stored at {source.place}, expected a path inside this folder.")
    return sources


def _leads_out(name: str) -> bool:
    try:
        unresolved_path_inside(Path(), name)
    except ArtefactError:
        return True
    return False


def resolve_commit(hub: HubRepository, locked: str | None) -> str:
    """The commit of a repository: the locked one, or else that of its revision (by default the newest)."""
    if locked is not None:
        return locked
    with _hub_errors(hub.name, hub.revision):
        info = HfApi().repo_info(hub.repository, repo_type=hub.kind, revision=hub.revision)
    if info.sha is None:
        raise AssetError(f"{hub.name}: the Hub returned no commit for it; set its revision in {SOURCES_FILE}.")
    return str(info.sha)


def list_files(source: Source, commit: str, unet: str) -> list[RemoteFile]:
    """The files of a Hub entry at a commit, by name. Raises `AssetError` if one of its patterns matches no file."""
    assert source.hub is not None
    hub = source.hub
    with _hub_errors(hub.name, commit):
        listing = HfApi().dataset_info if hub.kind == "dataset" else HfApi().model_info
        siblings = listing(hub.repository, revision=commit, files_metadata=True).siblings
    remote_files = {}
    for pattern in (pattern.replace("{unet}", unet) for pattern in source.files):
        matching = [file for file in siblings or [] if fnmatch.fnmatchcase(file.rfilename, pattern)]
        if not matching:
            raise AssetError(
                f"{hub.name}: no file matches {pattern} at {commit[:12]}, expected {source.what}. If you have a copy, "
                f"put it at {source.place}, or set its path in `world.assets` of your study."
            )
        for file in matching:
            if _leads_out(file.rfilename):
                raise AssetError(f"{hub.name}: the file name {file.rfilename!r} leads out of its folder.")
            sha256 = file.lfs.sha256 if file.lfs else None
            remote_files[file.rfilename] = RemoteFile(file.rfilename, int(file.size or 0), sha256, file.blob_id)
    return [remote_files[name] for name in sorted(remote_files)]


def fetch_from_hub(source: Source, commit: str, files: list[RemoteFile], say: Callable[[str], None]) -> None:
    """Download the files of a Hub entry into its folder; existing files are only verified.

    Raises `AssetError` if the network fails, in which case the received part is kept, or if a file does not match the
    hash that the Hub records, in which case it is removed.
    """
    assert source.hub is not None
    hub, token = source.hub, get_token()
    for number, file in enumerate(files, start=1):
        path = Path(source.folder) / file.name
        if path.is_file() and path.stat().st_size == file.size and _matches(file, path):
            continue
        say(f"  {number} of {len(files)}: {file.name}")
        url = hf_hub_url(hub.repository, file.name, repo_type=hub.kind, revision=commit)
        with _hub_errors(hub.name, commit):
            part = _download(url, path, file.size, {"authorization": f"Bearer {token}"} if token else {})
        if not _matches(file, part):
            part.unlink()
            raise AssetError(
                f"{path}: the downloaded file does not match the hash {(file.sha256 or file.blob or '')[:12]} of "
                f"{hub.name} and was removed; {RETRY_ADVICE}."
            )
        part.replace(path)


def fetch_from_url(source: Source) -> None:
    """Download the file of a URL entry to its path. Raises `AssetError` as `fetch_from_hub` does."""
    assert source.url is not None
    path = Path(source.place)
    with _hub_errors(source.url, None):
        part = _download(source.url, path, None, {})
    sha256 = sha256_of_path(part)
    if not sha256.startswith(source.sha256 or ""):
        part.unlink()
        raise AssetError(
            f"{path}: the file from {source.url} has the sha256 {sha256[:12]}, expected {source.sha256}, and was "
            f"removed; {RETRY_ADVICE}."
        )
    part.replace(path)


def _download(url: str, path: Path, size: int | None, headers: dict[str, str]) -> Path:
    """Download the whole file to a partial file beside `path`, resuming from the content left by an earlier call.

    Calls an internal function of the Hub's client, because the public one starts anew in every process.
    """
    part = path.with_name(f".{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    if size is not None and part.exists() and part.stat().st_size > size:
        part.unlink()
    with part.open("ab") as stream:
        resume_size = stream.tell()
        http_get(
            url, stream, resume_size=resume_size, headers=headers, expected_size=size, displayed_filename=path.name
        )
    return part


def _matches(file: RemoteFile, path: Path) -> bool:
    """Whether a local file matches the hash that the Hub records."""
    if file.sha256 is not None:
        return sha256_of_path(path) == file.sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == file.blob


@contextmanager
def _hub_errors(origin: str, revision: str | None) -> Iterator[None]:
    """Turn the exceptions of the Hub's client into `AssetError` with one sentence."""
    try:
        yield
    except errors.RevisionNotFoundError:
        raise AssetError(
            f"{origin}: it has no revision {revision!r}, expected one of its branches, tags or commits; see "
            f"{SOURCES_FILE}."
        ) from None
    except errors.GatedRepoError:
        raise AssetError(
            f"{origin}: gated repository; request access on its page, then log in with `hf auth login`."
        ) from None
    except errors.RepositoryNotFoundError:
        raise AssetError(
            f"{origin}: the Hub has no such repository, or it is private; check the name in {SOURCES_FILE}."
        ) from None
    except errors.EntryNotFoundError as error:
        raise AssetError(f"{origin}: a listed file is missing ({first_line_of(error)}).") from None
    except errors.HfHubHTTPError as error:
        raise AssetError(
            f"{origin}: the server refused the request ({first_line_of(error)}); {RETRY_ADVICE}."
        ) from None
    except (httpx2.HTTPError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, ConnectionError) as error:
        server = constants.ENDPOINT if "://" not in origin else "the server"
        raise AssetError(f"{origin}: {server} cannot be reached ({first_line_of(error)}); {RETRY_ADVICE}.") from None
    except OSError as error:
        raise AssetError(f"{origin}: the transfer failed ({first_line_of(error)}); {RETRY_ADVICE}.") from None

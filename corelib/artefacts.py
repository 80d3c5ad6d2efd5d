"""Files that appear whole or not at all, and the manifests that vouch for them.

A stage writes its files into its own folder and last of all `manifest.json`, which holds the sha256 of each of them.
Manifests are the edges of the workflow: small, compared by content, and safe for Snakemake to delete.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from corelib.errors import ArtefactError, UserError

MANIFEST = "manifest.json"

LARGEST_JSON = 32 * 2**20
"""Bytes of a JSON file. The largest of a study has two million; parsed it takes up to thirty times as much memory."""

LONGEST_NAME = 1024
"""Characters of a path below a folder."""

NO_ROOM = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Faults of the place and not of the code."""

UMASK = os.umask(0)
"""What this process takes away from permissions; temporary files are made with fewer than that."""
os.umask(UMASK)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well, and vanishes when it does not.

    Raises `OSError` under the name of `path` if there is no room for it, whatever a library in the block says of that,
    and `ArtefactError` if a folder that is not empty has that name.
    """
    if path.is_dir() and not path.is_symlink():
        with suppress(OSError):
            path.rmdir()  # an empty one is nobody's
    if path.is_dir():
        raise _folder_in_the_way(path)
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        with _named(path, temporary):
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o666 & ~UMASK)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """An empty temporary folder beside `path` that takes its place when the block ends well, and vanishes if not.

    Raises `OSError` under the name of `path` if there is no room for it.
    """
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        with _named(path, temporary):
            yield temporary
            temporary.chmod(0o777 & ~UMASK)
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _folder_in_the_way(path: Path) -> ArtefactError:
    return ArtefactError(f"{path}: a folder, expected a file there; delete it and ask for the target again.")


@contextmanager
def _named(path: Path, written: Path | None = None) -> Iterator[None]:
    """Let a fault of the place bear the name of the file that was to be written there.

    Libraries say that a disk is full in words of their own, or not at all: where they give no number, the disk itself
    is asked, by writing some more of what is `written` in the block.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            name = str(error.filename or "")
            is_ours = f".{path.name}." in name or not name
            fault = error.errno if is_ours else None
        elif (said := re.search(r"\b(?:os error|errno) (\d+)", str(error))) and int(said.group(1)) in NO_ROOM:
            fault = int(said.group(1))
        else:
            fault = None if written is None else _refusal(written)
        if fault is None:
            raise
        raise OSError(fault, os.strerror(fault), str(path)) from error


def _refusal(written: Path) -> int | None:
    """Why nothing more can be written to a file, or into a folder, if that is so: the system's number of the error."""
    try:
        with (written / "more" if written.is_dir() else written).open("ab") as stream:
            stream.write(bytes(1 << 16))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.errno if error.errno in NO_ROOM else None
    return None


def write_text(path: Path, text: str) -> None:
    """Write `text` whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, whole or not at all."""
    write_text(path, as_json(value))


def as_json(value: Any) -> str:
    """The text that `write_json` writes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_json(path: Path, record: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The value in a JSON file, its objects as dictionaries or as `record` makes them of those.

    Raises `ArtefactError` if it is missing, too large, or not JSON.
    """
    try:
        content = content_of(path, LARGEST_JSON)
    except FileNotFoundError:
        raise ArtefactError(f"{path}: the file is missing; ask for the target again to rebuild it.") from None
    except IsADirectoryError:
        raise _folder_in_the_way(path) from None
    except OSError as error:
        raise ArtefactError(f"{path}: not readable ({error.strerror or error}), expected a JSON file.") from None
    try:
        return json.loads(content.decode("utf-8"), object_hook=record)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(
            f"{path}: not readable as JSON ({error}); delete it and ask for the target again."
        ) from None


def content_of(path: Path, most: int) -> bytes:
    """The bytes of a regular file. Raises `OSError` if there is none, it is no regular file, or has more than `most`.

    Opened without waiting: a pipe or a device in the place of a file would keep the reader for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, at most {most:,} can be meant", str(path))
    return content


def sha256_of_text(text: str) -> str:
    """Hexadecimal sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file, or of a folder: over the sorted relative paths and hashes of its files.

    Raises `OSError` for a pipe or a device, which has no end.
    """
    if path.is_dir():
        lines = (f"{file.relative_to(path).as_posix()} {sha256_of(file)}" for file in files_below(path))
        return sha256_of_text("\n".join(lines))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Every file below `folder` in a fixed order, temporary ones (with a leading dot) left out."""
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))


@dataclass(frozen=True)
class Manifest:
    """What a stage made.

    Attributes:
        folder: of the stage.
        stage, digest: of which run it is.
        files: their hashes.
        facts: what later stages read.
        trained: the seals of the trained models behind it, by the names of their runs.
        seal: of all this.
    """

    folder: Path
    stage: str
    digest: str
    files: Mapping[str, str]
    facts: Mapping[str, Any]
    trained: Mapping[str, str] = field(default_factory=dict)
    seal: str = ""

    def outside(self, path: str, sha256: str) -> Path:
        """The path of something that the stage vouches for by a fact, an asset say, after checking its bytes.

        `path` is relative to the stage's folder, and the links in it are followed. Raises `ArtefactError` if it leads
        elsewhere than a link of the folder itself does, or the bytes are other ones.
        """
        found = followed(self.place(path))
        if not found.exists():
            raise ArtefactError(f"{found}: missing, expected what {self.folder / MANIFEST} vouches for.")
        if (sha := _sha256_or_reason(found)) != sha256:
            raise ArtefactError(
                f"{found}: its sha256 is {sha[:12]}, expected {sha256[:12]} as when it was taken into use; put the old "
                f"content back, or delete {self.folder} to take the new one into use under every run that needs it."
            )
        return found

    def place(self, path: object) -> Path:
        """Where something lies that a fact names, unchecked: in the stage's folder, or where a link of it leads.

        The links at the top of a folder are those by which a run takes the user's own files into use.
        """
        lexical = named_below(self.folder, path)
        top = self.folder / lexical.relative_to(self.folder).parts[0]
        return lexical if top.is_symlink() else below(self.folder, path)

    def file(self, name: str) -> Path:
        """The path of one of the stage's files, after checking that its bytes are the ones vouched for.

        Raises `ArtefactError` if they are not, or if the file or a link in it leads out of the stage's folder.
        """
        if name not in self.files:
            raise ArtefactError(
                f"{self.folder / MANIFEST}: it vouches for no file `{name}`, only {sorted(self.files)}."
            )
        path = below(self.folder, name)
        if not path.exists():
            raise ArtefactError(f"{path}: the file is missing; delete {self.folder} and ask for the target again.")
        if path.is_dir():
            for link in (file for file in path.rglob("*") if file.is_symlink()):
                below(self.folder, link.relative_to(self.folder).as_posix())
        if (found := _sha256_or_reason(path)) != self.files[name]:
            raise ArtefactError(
                f"{path}: its sha256 is {found[:12]}, but its manifest expects {self.files[name][:12]}; "
                f"the file is damaged: delete {self.folder} and ask for the target again."
            )
        return path


def below(folder: Path, name: object) -> Path:
    """The path of what a file calls `name`, which has to lie below `folder`, with all links followed.

    Everything that a manifest, a specification or an index says of where a file lies goes through here. Raises
    `ArtefactError` if it is no relative path, or leads out of the folder by `..` or by a link.
    """
    path = named_below(folder, name)
    try:
        leads_out = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links in a circle
        leads_out = True
    if leads_out:
        raise ArtefactError(f"{path}: it leads out of {folder}, expected a file below it and not a link to elsewhere.")
    return path


def named_below(folder: Path, name: object) -> Path:
    """As `below`, by the name alone."""
    said = PurePosixPath(name) if isinstance(name, str) and name.isprintable() else PurePosixPath("..")
    if said.is_absolute() or ".." in said.parts or not said.parts or len(str(said)) > LONGEST_NAME:
        raise ArtefactError(
            f"{folder}: the file {str(name)[:80]!r} leads out of its folder, expected a name of one below it."
        )
    return folder / said


def _sha256_or_reason(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise ArtefactError(f"{path}: not readable ({error.strerror or error}), expected a file.") from None


def followed(path: Path) -> Path:
    """Where a path leads through the links in it; below the working directory, as seen from there.

    Raises `ArtefactError` if it leads in a circle.
    """
    try:
        real = path.resolve()
    except (OSError, RuntimeError):
        raise ArtefactError(f"{path}: its links lead in a circle, expected a file or a folder.") from None
    return real.relative_to(Path.cwd()) if real.is_relative_to(Path.cwd()) else real


def vouched_for(
    folder: Path,
    stage: str,
    digest: str,
    files: list[str],
    facts: Mapping[str, Any],
    trained: Mapping[str, str],
    inputs: Mapping[str, str],
) -> dict[str, Any]:
    """The content of a manifest over the named files (or folders) in a stage's folder, as they are now.

    `trained` has the seals of the trained models behind the run, and `inputs` those of the runs that a product was put
    together from, both by name.
    """
    hashes = {name: sha256_of(folder / name) for name in files}
    content = {"stage": stage, "digest": digest, "files": hashes, "facts": dict(facts)}
    return sealed({**content, "trained": dict(trained), "inputs": dict(inputs)})


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Some content with its own hash: of a file that nothing else vouches for, and whose numbers are results."""
    return {**content, "seal": _seal_of(content)}


def has_its_seal(content: Any) -> bool:
    """Whether content is as it was when it was sealed."""
    return isinstance(content, dict) and content.get("seal") == _seal_of(content)


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a JSON file that carries its own seal.

    Raises `ArtefactError` if it is missing, unreadable or not as it was written.
    """
    content = read_json(path)
    if not has_its_seal(content):
        raise ArtefactError(
            f"{path}: its content does not have the seal it was written with; delete it and ask for the target again."
        )
    return dict(content)


def is_as_written(path: Path, content: Any) -> bool:
    """Whether a JSON file has the very bytes with which the sealed content that was read from it was written.

    A seal is taken over values, and one value may be spelled in two ways that differ by a bit: 1e-05 and 1E-05.
    """
    return has_its_seal(content) and path.read_bytes() == as_json(content).encode("utf-8", "surrogatepass")


def _seal_of(content: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in content.items() if key != "seal"}
    as_read = json.loads(json.dumps(kept))
    return sha256_of_text(json.dumps(as_read, sort_keys=True, ensure_ascii=True))


def is_still_true(content: Any, folder: Path, digest: str) -> bool:
    """Whether the content of a manifest belongs to a run and every file is there with the bytes it vouches for."""
    try:
        files = content["files"].items()
        belongs = has_its_seal(content) and content["digest"] == digest
        return belongs and all(sha256_of(below(folder, name)) == sha for name, sha in files)
    except (ArtefactError, OSError, KeyError, TypeError, AttributeError):
        return False


def write_manifest(
    path: Path, folder: Path, stage: str, digest: str, files: list[str], facts: Mapping[str, Any]
) -> None:
    """Hash the named files (or folders) of a stage and vouch for them in `path`; the last thing that a stage does."""
    write_json(path, vouched_for(folder, stage, digest, files, facts, {}, {}))


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file. Raises `ArtefactError` if it is missing, malformed or not as it was written."""
    content = read_json(path, functools.partial(Record, source=path))
    if not has_its_seal(content):
        raise ArtefactError(f"{path}: not a manifest as it was written; delete it and ask for the target again.")
    kinds = {"stage": str, "digest": str, "files": dict, "facts": dict, "trained": dict}
    if not all(isinstance(content.get(key), kind) for key, kind in kinds.items()):
        raise ArtefactError(f"{path}: not a manifest; delete it and ask for the target again.")
    if not all(isinstance(sha256, str) for part in ("files", "trained") for sha256 in content[part].values()):
        raise ArtefactError(f"{path}: not a manifest, a file has no sha256; delete it and ask for the target again.")
    return Manifest(path.parent, *(content[key] for key in (*kinds, "seal")))


class Record(dict[str, Any]):
    """What a JSON file says; a key that is missing is an `ArtefactError` that names the file."""

    def __init__(self, content: Mapping[str, Any], source: Path) -> None:
        super().__init__(content)
        self.source = source

    def __missing__(self, key: str) -> Any:
        raise ArtefactError(f"{self.source}: it lacks `{key}`; delete it and ask for the target again.")

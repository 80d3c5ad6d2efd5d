"""The claims of the paper, from `config/claims.yaml`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from corelib.files.yaml_files import UnreadableYaml, read_yaml
from corelib.settings.claims import Claim
from corelib.study.wording import error_in, to_yaml

CLAIMS_FILE = "claims.yaml"


def load_claims(folder: Path) -> list[Claim]:
    """Read the claims of a configuration folder; none if it has no such file.

    Raises `ConfigurationError` for the first entry that is not a claim.
    """
    file = folder / CLAIMS_FILE
    if not file.exists():
        return []
    try:
        entries = read_yaml(file)
    except UnreadableYaml as error:
        raise error_in(file, f"not readable ({error}), expected a list of claims") from None
    if not isinstance(entries, list):
        raise error_in(file, f"it is {to_yaml(entries)}, expected a list of claims")
    claims: list[Claim] = []
    for number, entry in enumerate(entries, start=1):
        name = entry.get("name", f"number {number}") if isinstance(entry, dict) else f"number {number}"
        try:
            claim = Claim.model_validate(entry)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in fault["loc"]) or "the entry"
            raise error_in(file, f"claim {name}: {place} is not valid ({fault['msg'].lower()})") from None
        if claim.name in {known.name for known in claims}:
            raise error_in(file, f"claim {name} occurs twice, expected each name once")
        claims.append(claim)
    return claims

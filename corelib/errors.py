"""Errors whose text is meant for the user of the pipeline."""


class UserError(Exception):
    """One sentence that names the file or the key, the value found, and what was expected.

    A job that ends in one prints the sentence alone; any other exception is a bug and keeps its traceback.
    """


class ConfigurationError(UserError):
    """A study that cannot be planned."""


class AssetError(UserError):
    """Something the user has to provide is missing, or is not what it should be."""


class ArtefactError(UserError):
    """A file that this pipeline made is missing, damaged, or belongs to something else."""


class Interrupted(Exception):
    """The job was asked to end (SIGTERM) and has saved its state; it goes on from there when it is started again."""

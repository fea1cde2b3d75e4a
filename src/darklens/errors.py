"""Errors that a user can act on: each says what is wrong, where, and what would be right."""


class DarklensError(Exception):
    """Base of every error that darklens raises on purpose; the command line prints it without a traceback."""


class DataError(DarklensError):
    """A file, folder or array cannot be used as it is."""


class DamagedFileError(DataError):
    """The content of a file cannot be decoded; other files of its folder may be whole."""


class PresetError(DarklensError):
    """A preset is misspelt or physically impossible."""


class RecipeError(DarklensError):
    """A recipe is misspelt or asks for something that does not exist."""


class TrainingError(DarklensError):
    """A training cannot go on."""


class ModelError(DarklensError):
    """A trained model cannot be read, or does not fit the data it is given."""


class UserCodeError(DarklensError):
    """A file of the user's own code is missing, fails, or does not hold what was named."""


class UntrustedCodeError(UserCodeError):
    """A file names code of someone's own, and the user has not said that it may run."""


class InUseError(DataError):
    """Another process works in the folder."""


class UnsafePickleError(DataError):
    """A pickle asks for something other than numpy arrays and plain values."""

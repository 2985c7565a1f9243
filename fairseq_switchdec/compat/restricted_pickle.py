"""torch < 2.6: ``torch.load`` that resolves no name but admitted ones; what ``weights_only`` is in later releases."""

from __future__ import annotations

import _codecs
import _compat_pickle
import io
import pickle
import tarfile
import zipfile
from types import ModuleType

import torch
from torch._weights_only_unpickler import _get_allowed_globals


def load(file: io.IOBase, map_location, admitted: dict[str, object]):
    """Load what ``torch.save`` wrote, in its zip format or the older one.

    Args:
        file: Readable and seekable, in binary mode.
        map_location: As in ``torch.load``.
        admitted: What the file may name besides what torch admits itself: qualified name -> object.

    Raises:
        pickle.UnpicklingError: The file names anything else ("GLOBAL <name> is not admitted"), or is an archive that
            torch would not read with the unpickler alone.
    """
    _refuse_other_archives(file)
    # How Python writes bytes in the protocol that torch.save uses; later releases of torch admit it themselves.
    names = {**_get_allowed_globals(), "_codecs.encode": _codecs.encode, **admitted}
    # Also torch's classes whose state old files set in place, rather than through torch._utils.
    types = {thing for thing in names.values() if isinstance(thing, type)}

    class Unpickler(pickle._Unpickler):  # the one in Python: its handling of an opcode can be narrowed
        def find_class(self, module: str, name: str):
            # Names of Python 2, which that protocol still uses.
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
            try:
                return names[f"{module}.{name}"]
            except KeyError:
                raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is not admitted") from None

        def load_build(self) -> None:
            # Else a file could set attributes of an admitted class, not only of objects.
            if type(self.stack[-2]) not in types:
                raise pickle.UnpicklingError(f"setting the state of {type(self.stack[-2])} is not admitted")
            super().load_build()

        dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}

    restricted = ModuleType("restricted_pickle")
    restricted.Unpickler = Unpickler
    restricted.load = lambda stream, **options: Unpickler(stream, **options).load()
    return torch.load(file, map_location=map_location, pickle_module=restricted, weights_only=False)


def _refuse_other_archives(file: io.IOBase) -> None:
    """torch < 2.6 runs the code of a TorchScript archive, and unpacks a tar file, without asking the unpickler."""
    start = file.tell()
    is_zip = zipfile.is_zipfile(file)
    is_script = is_zip and any(name.endswith("/constants.pkl") for name in zipfile.ZipFile(file).namelist())
    file.seek(start)
    is_tar = not is_zip and tarfile.is_tarfile(file)
    file.seek(start)
    if is_script or is_tar:
        raise pickle.UnpicklingError("a tar or TorchScript archive, not a checkpoint")

"""The records of finished batches, in a file from which an interrupted run goes on."""

import hashlib
import json
from pathlib import Path

import stable_softmax


class State:
    """Records by backend and dtype, in the order of the batches; kept in a file if there is one."""

    def __init__(self, path, seed):
        self._path = path
        self._about = {"seed": seed, "code": _code_digest()}
        self._records = {}
        if path is not None and path.exists():
            self._load(json.loads(path.read_text()))

    def records(self, backend, dtype):
        """Return the list of records, to read."""
        return self._records.setdefault(f"{backend} {dtype}", [])

    def add(self, backend, dtype, record):
        """Append the record of the next batch, and save all."""
        self.records(backend, dtype).append(record)
        if self._path is not None:
            # A run that is killed while it writes must not lose the file.
            unfinished = self._path.with_name(f"{self._path.name}.new")
            unfinished.write_text(json.dumps({"about": self._about, "records": self._records}))
            unfinished.replace(self._path)

    def _load(self, saved):
        for what, value in self._about.items():
            if saved["about"][what] != value:
                raise ValueError(f"{self._path} is of another {what}: {saved['about'][what]}, not {value}")
        self._records = saved["records"]


def _code_digest():
    """Return a digest of the library and of this test: results of other code prove nothing about this one."""
    digest = hashlib.sha256()
    for folder in (Path(stable_softmax.__file__).parent, Path(__file__).parent):
        for file in sorted(folder.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]

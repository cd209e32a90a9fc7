"""What names a model's content, wherever it lies."""

from llenergymeasure.config.identity import Identifier
from llenergymeasure.errors import BackendError
from llenergymeasure.ids import digest
from llenergymeasure.workload.models.hub import cached_file
from llenergymeasure.workload.models.resolve import ModelSource


def model_content(source: ModelSource) -> str:
    """Return a name for a model's content: the same for the same weights, whatever its place.

    A local folder goes by the hash of its files, a model on the hub by its commit there, and
    random weights by their architecture.

    Raises:
        BackendError: the model's files cannot be read.
    """
    if source.random:
        return f"random:{digest(dict(source.config))}"
    if source.folder is None:
        found = cached_file(source.name, "config.json", source.revision)
        if found is None:
            raise BackendError(f"model {source.name} is not in the local cache of the hub")
        return f"hub:{source.name}@{found.parent.name}"
    identifier = Identifier()
    try:
        content = identifier.content(source.folder)
    except OSError as error:
        raise BackendError(f"model folder {source.folder} cannot be read: {error}") from error
    identifier.save()
    return f"sha256:{content}"

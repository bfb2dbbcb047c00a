"""The estimator that a user holds: a plain `Estimator` that can be read from a folder or the Hub, and written to one.

As `StreamingModel` is to `Model`: all else in the package takes plain estimators.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from eyeline.errors import EstimatorError
from eyeline.estimator import Estimator
from eyeline.estimator_files import find_estimator
from eyeline.estimator_store import save_with_readme
from eyeline.hub import HubError, upload


class SharedEstimator(Estimator):
    """An estimator that can be shared: numbers in safetensors, a card in JSON, nothing that runs."""

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, token: str | None = None
    ) -> "SharedEstimator":
        """Reads one from a folder, or from a repository on the Hub given as `owner/name`.

        `revision`: a branch, tag or commit; `token`: of a private repository, by default the one that you are logged in with.
        What was read once is read again from the Hub's cache where the Hub cannot be reached. Raises `EstimatorError`.
        """
        return cls(**vars(find_estimator(source, revision, token)))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a folder that `from_pretrained` reads, with a README in plain words. Raises `DataError`."""
        save_with_readme(self, Path(folder).expanduser())

    def push_to_hub(
        self, repo: str, *, private: bool | None = None, revision: str | None = None, token: str | None = None
    ) -> str:
        """Puts it into a repository on the Hub in one commit, made first where there is none; the commit's address.

        `private`: a new repository is, and a public one of that name is refused. `revision`: a branch, by default main. A model
        that was a folder here is named by the folder's name alone. Raises `EstimatorError`.
        """
        model = str(self.card.get("model", ""))
        card = {**self.card, "model": Path(model).name if Path(model).is_absolute() else model}
        try:
            with tempfile.TemporaryDirectory() as folder:
                save_with_readme(replace(self, card=card), Path(folder), repo)
                return upload(
                    Path(folder), repo, private=private, revision=revision, token=token,
                    message=f"Estimator {self.id} of {card['model']}",
                )  # fmt: skip
        except HubError as error:
            raise EstimatorError(
                f"{self.id!r} could not be put into {repo!r} on the Hub: {error}."
            ) from error

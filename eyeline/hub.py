"""Files from the Hugging Face Hub and to it, by its own client with its cache and tokens, and sentences for what fails."""

import errno
import re
from collections.abc import Sequence
from pathlib import Path

from eyeline.errors import EyelineError

ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class HubError(EyelineError):
    """What the Hub did not give or take; the message is a part of a sentence."""


def is_id(source: object) -> bool:
    """Whether something could be a repository's id, `owner/name`."""
    return isinstance(source, str) and ID.fullmatch(source) is not None


def download(repo: str, names: Sequence[str], revision: str | None = None, token: str | None = None) -> Path:
    """The folder in the Hub's cache with some files of a repository; offline, as it was last seen. Raises `HubError`."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(repo, revision=revision, token=token, allow_patterns=list(names))
    except Exception as error:  # of the Hub, the network or the disk
        raise HubError(_why(error, repo, revision)) from error
    missing = [name for name in names if not Path(folder, name).is_file()]
    if missing:
        raise HubError(f"the repository has no {' and no '.join(missing)}")
    return Path(folder)


def upload(
    folder: Path, repo: str, *, private: bool | None, revision: str | None, token: str | None, message: str
) -> str:
    """Puts all of a folder into a repository in one commit, made first where it is missing; the commit's address.

    A repository that is public stays so: with `private` it is refused. Raises `HubError`.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise HubError("the repository is public already, and it was to be private; give another name")
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=folder, revision=revision, commit_message=message)
    except HubError:
        raise
    except Exception as error:
        raise HubError(_why(error, repo, revision)) from error
    return str(done.commit_url)


def _why(error: Exception, repo: str, revision: str | None) -> str:
    """What went wrong and what to do, as the end of a sentence."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository has no revision {revision or 'main'!r}"
    if isinstance(error, errors.GatedRepoError):
        return f"its owner gives access on request: ask at {repo}'s page, and log in with `hf auth login`"
    if status in (401, 403) and not isinstance(error, errors.RepositoryNotFoundError):
        return "the token does not allow it, or there is none; log in with `hf auth login`, or give a token"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repository, or it is private and the token does not open it; see `hf auth login`"
    if isinstance(error, errors.HFValidationError):
        return "that is no name of a repository; expected owner/name"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space, or set HF_HOME to another disk"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return "the Hub cannot be reached, or HF_HUB_OFFLINE is set, and it is not in the cache here; try again online"
    if isinstance(error, ConnectionError) or type(error).__name__ in ("ConnectError", "ConnectTimeout"):
        return "the Hub cannot be reached; try again online"
    return f"{type(error).__name__}{'' if status is None else f', status {status}'}"

"""The gateway's uid: what tells its records from those of every other gateway."""

import os
import uuid
from pathlib import Path

from fzgw.config.models import Config

UID_FILE = "gateway.uid"


def uid_for(public_key: bytes, state_dir: Path) -> str:
    """The uid kept in `state_dir`, else the one that follows from the public key: the same at every start, and the
    one `keep_uid` keeps, so that reading a configuration writes nothing."""
    try:
        return str(uuid.UUID((state_dir / UID_FILE).read_text(encoding="ascii").strip()))
    except (OSError, ValueError):
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"fzgw gateway {public_key.hex()}"))


def keep_uid(config: Config) -> bool:
    """Keeps the gateway's uid in its state directory, for the day its key changes; False when that is not possible
    (the uid then follows from the key). What is kept already stays. Called once when the gateway starts."""
    state_dir = config.gateway.state_dir
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(state_dir / UID_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return True
    except OSError:
        return False
    with os.fdopen(file, "w", encoding="ascii") as stream:
        stream.write(config.gateway.uid + "\n")
    return True

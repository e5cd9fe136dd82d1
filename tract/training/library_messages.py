"""Messages of libraries that a training hides."""

from __future__ import annotations

import logging
import warnings


def silence_library_logs() -> None:
    """Hides what libraries print at every start and no user can act on; other warnings stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*`tensorboardX` has been removed.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*torch.distributed.* is deprecated.*", category=FutureWarning)  # DeepSpeed's calls
    warnings.filterwarnings("ignore", message=".*Initializing zero-element tensors is a no-op.*")  # another rank holds them
    warnings.filterwarnings("ignore", message=".*It is recommended to use .self.log.*sync_dist=True.*")  # each rank has the value of all

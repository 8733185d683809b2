"""The pixel engine: wants in, arrays out. It knows files and grids, and nothing of STAC.

`blocks` is what others call. `crew` shares the work among threads so that no block is decoded twice, `rasters` opens
files near and far, `remote` fetches ranges over HTTP, and `warp` knows where the pixels of a grid lie in a file.
"""

from deepsentinel.sources.patience import reading_until

from .blocks import check_limits, iter_wants, keeping, read_wants
from .wants import Want

__all__ = ["Want", "check_limits", "iter_wants", "keeping", "read_wants", "reading_until"]

from .aoi import geobox as geobox
from .contract import check_patch as check_patch
from .figures import show as show
from .pairing import match_rate as match_rate
from .pairing import pair as pair
from .pairing import select as select
from .sources import open_source as open_source

__version__: str

from .aoi import geobox as geobox
from .contract import check_patch as check_patch
from .embedding import embed as embed
from .encoders import list_encoders as list_encoders
from .encoders import load_encoder as load_encoder
from .figures import show as show
from .labels import read_labels as read_labels
from .labels.rasters import read_label_raster as read_label_raster
from .masks import rasterize as rasterize
from .masks.fractions import class_fractions as class_fractions
from .masks.fractions import label_vector as label_vector
from .masks.objects import boxes as boxes
from .masks.report import label_report as label_report
from .masks.windows import parcel_sizes as parcel_sizes
from .masks.windows import parcel_window as parcel_window
from .pairing import match_rate as match_rate
from .pairing import pair as pair
from .pairing import select as select
from .similarity import cluster as cluster
from .similarity import embedding_change as embedding_change
from .similarity import knn as knn
from .similarity import linear_probe as linear_probe
from .similarity import pca_rgb as pca_rgb
from .similarity import similarity_index as similarity_index
from .sources import open_source as open_source

__version__: str

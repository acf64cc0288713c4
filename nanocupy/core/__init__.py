"""The array engine: lazy arrays, NumPy's names, `compile` into Programs. As `mlx.core`.

What MLX has and this has not is refused by name: see `unsupported`.
"""

from math import e as e
from math import inf as inf
from math import nan as nan
from math import pi as pi

from nanocupy.core import distributed as distributed
from nanocupy.core import fast as fast
from nanocupy.core import linalg as linalg
from nanocupy.core import metal as metal
from nanocupy.core import methods as methods
from nanocupy.core import random as random
from nanocupy.core.array import *
from nanocupy.core.compiled import compile as compile
from nanocupy.core.convolution import *
from nanocupy.core.creation import *
from nanocupy.core.devices import *
from nanocupy.core.dtypes import astype as astype
from nanocupy.core.indexing import *
from nanocupy.core.io import *
from nanocupy.core.layout import *
from nanocupy.core.ops import *
from nanocupy.core.products import *
from nanocupy.core.program import Program as Program
from nanocupy.core.quantized import *
from nanocupy.core.reductions import *
from nanocupy.core.scans import *
from nanocupy.core.shapes import *
from nanocupy.core.sorting import *
from nanocupy.core.types import *
from nanocupy.core.unsupported import refuse
from nanocupy.device.base import Rows as Rows

newaxis = None
euler_gamma = 0.5772156649015329
__getattr__ = refuse(__name__, "mlx.core", "cuda hadamard_transform")

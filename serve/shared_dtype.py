"""`dtype: auto` of a deployment: the first replica to start asks its chip, and the others take what it found.

All replicas of a deployment's version give equal scores so, on whatever nodes they are. Ray keeps what was
found beside its own state, where a key is set once.
"""

from ray import serve as ray_serve
from ray.experimental import internal_kv

from pipeline.errors import fields_under
from pipeline.scoring import ScorerConfig
from pipeline.scoring.dtype import check_native, settled


def shared(config: ScorerConfig) -> ScorerConfig:
    """The scorer of this replica, with a dtype.

    Raises ModelError where the first replica's is none that this node computes natively.
    """
    if config.dtype != "auto":
        return config
    with fields_under("scorer"):
        own = settled(config)
        replica = ray_serve.get_replica_context()
        key = f"rayrank/dtype/{replica.app_name}/{replica.deployment}/{replica.code_version}"
        internal_kv._internal_kv_put(key, own.dtype, overwrite=False)
        first = config.model_copy(update={"dtype": internal_kv._internal_kv_get(key).decode()})
        check_native(first)
    return first

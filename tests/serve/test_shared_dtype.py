"""`dtype: auto` of a deployment, with Ray's store of keys played by a dict; test_app.py has the real one."""

from types import SimpleNamespace

import pytest
from ray import serve as ray_serve

from pipeline.errors import ModelError
from pipeline.scoring import ScorerConfig, dtype
from serve import shared_dtype
from serve.shared_dtype import shared
from tests.conftest import TINY

AUTO = ScorerConfig(model=TINY, device="cpu", dtype="auto")


class Keys(dict[str, bytes]):
    def _internal_kv_put(self, key: str, value: str, *, overwrite: bool) -> bool:
        assert not overwrite
        return self.setdefault(key, value.encode()) != value.encode()

    def _internal_kv_get(self, key: str) -> bytes:
        return self[key]


class Cluster:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(shared_dtype, "internal_kv", Keys())

    def start(self, *, bfloat16: bool, version: str = "1", config: ScorerConfig = AUTO) -> str:
        """A replica on a node with such a chip: its dtype."""
        self._monkeypatch.setattr(dtype, "has_bfloat16", lambda _: bfloat16)
        replica = SimpleNamespace(app_name="rerank", deployment="tiny", code_version=version)
        self._monkeypatch.setattr(ray_serve, "get_replica_context", lambda: replica)
        return shared(config).dtype


def test_all_replicas_take_what_the_first_one_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch)
    assert cluster.start(bfloat16=False) == "float32"
    assert cluster.start(bfloat16=True) == "float32"
    assert cluster.start(bfloat16=True, version="2") == "bfloat16"


def test_a_replica_that_cant_compute_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch)
    assert cluster.start(bfloat16=True) == "bfloat16"
    with pytest.raises(ModelError, match=r"^scorer\.dtype auto: became bfloat16 on another node"):
        cluster.start(bfloat16=False)


def test_a_dtype_that_is_named_needs_no_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    named = AUTO.model_copy(update={"dtype": "bfloat16"})
    assert Cluster(monkeypatch).start(bfloat16=False, config=named) == "bfloat16"
